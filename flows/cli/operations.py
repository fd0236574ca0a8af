"""Commands of the engineer on call: status, reconcile, backfill, alerts, the dead-man check.

`status`, `alerts` and `deadman` need no server: they read the stores.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flows.progress import shown
from flows.settings import Settings, load_settings
from mosaic_core.contract.cycle import Cycle


def config_option(command: click.Command) -> click.Command:
    """Give a command the option that names a TOML file."""
    option = click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="TOML file with settings.",
    )
    return option(command)


def utc_now() -> dt.datetime:
    """The time on this machine's clock."""
    return dt.datetime.now(dt.UTC)


@config_option
@click.command()
@click.argument("cycle", required=False)
@click.option(
    "--cycles",
    default=12,
    show_default=True,
    type=click.IntRange(1, 4 * 366),
    help="Number of cycles, newest first.",
)
@click.option(
    "--json", "as_data", is_flag=True, help="The whole table, or the receipts of CYCLE, as JSON."
)
def status(config: Path | None, cycle: str | None, cycles: int, as_data: bool) -> None:
    """What became of each cycle, stage by stage; of one CYCLE, when each stage was done."""
    if cycle is not None:
        _one_cycle(Cycle.parse(cycle), load_settings(config), as_data=as_data)
        return
    from flows.watch.alerts import undelivered
    from flows.watch.status import WINDOW_CYCLES, as_json, freshness, rows
    from flows.watch.status_text import matrix_lines

    settings, now = load_settings(config), utc_now()
    table = rows(settings, now, count=max(cycles, WINDOW_CYCLES))
    figures = freshness(table, settings.objective_hours, now)
    if as_data:
        click.echo(json.dumps(as_json(table[:cycles], figures, now), indent=1))
        return
    for line in matrix_lines(table[:cycles], figures):
        click.echo(line)
    if silent := undelivered(settings.alerts):
        click.echo(f"{len(silent)} alerts were not delivered: mosaic-ops alerts list")


def _one_cycle(cycle: Cycle, settings: Settings, *, as_data: bool) -> None:
    from flows.receipts import receipts_of
    from flows.watch.waterfall import waterfall_lines

    receipts = receipts_of(cycle, settings.receipts)
    if as_data:
        click.echo(json.dumps([receipt.model_dump(mode="json") for receipt in receipts], indent=1))
        return
    for line in waterfall_lines(cycle, receipts):
        click.echo(line)
    if not receipts:
        click.echo(_where_published(cycle, settings.published))


def _where_published(cycle: Cycle, root: str) -> str:
    from postprocess.publish import published_cycle

    found = published_cycle(root, cycle)
    if found is None:
        return f"It is not published at {root}."
    return f"It is published at {root}, since {found.created_at:%Y-%m-%dT%H:%MZ}."


@config_option
@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def reconcile(config: Path | None, dry_run: bool) -> None:
    """One pass: finish crashed, late and missing cycles, newest first; raise the alerts."""
    from flows.orchestration.operations import reconcile_once
    from flows.orchestration.runs import connected

    with connected() as client:
        done = reconcile_once(load_settings(config), client, utc_now(), dry_run=dry_run)
    for action in done.verdict.actions:
        click.echo(f"{action.kind} {action.cycle}: {action.reason}")
    click.echo(done.summary)


@config_option
@click.command()
@click.option(
    "--hours", type=click.FloatRange(0, min_open=True), help="Age that is allowed; by default 16."
)
@click.option("--quiet", is_flag=True, help="Do not send the alert.")
def deadman(config: Path | None, hours: float | None, quiet: bool) -> None:
    """Is something being published at all? Reads the store only, for a cron outside Prefect."""
    from flows.watch.conditions import DEADMAN_HOURS, check_or_tell

    settings = load_settings(config)
    newest = check_or_tell(settings, utc_now(), hours or DEADMAN_HOURS, send=not quiet)
    click.echo(f"alive: {newest} is published")


@click.group()
def alerts() -> None:
    """The alerts that were raised."""


@config_option
@alerts.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
def list_alerts(config: Path | None, everything: bool) -> None:
    """Alerts that hold now, oldest first."""
    from flows.watch.alerts import records

    shown = [r for r in records(load_settings(config).alerts) if everything or r.over is None]
    for record in shown:
        ended = f", over {record.over:%Y-%m-%dT%H:%MZ}" if record.over else ""
        silent = record.muted_until if record.is_muted(utc_now()) else None
        muted = f", muted until {silent:%Y-%m-%dT%H:%MZ}" if silent else ""
        click.echo(f"{record.alert.key}: since {record.raised:%Y-%m-%dT%H:%MZ}{muted}{ended}")
        click.echo(f"  {record.alert.cause}\n  next: {record.alert.command}")
        if record.fault:
            click.echo(f"  NOT DELIVERED: {record.fault}")
    if not shown:
        click.echo("all is well")


@config_option
@alerts.command()
@click.argument("key")
@click.option("--hours", default=6.0, show_default=True, type=click.FloatRange(0, 168))
def mute(config: Path | None, key: str, hours: float) -> None:
    """Silence the alert KEY for some hours; it comes back if it still holds then."""
    from flows.watch import alerts as memory

    until = utc_now() + dt.timedelta(hours=hours)
    memory.mute(key, until, load_settings(config).alerts)
    click.echo(f"{key} is silent until {until:%Y-%m-%dT%H:%MZ}")


@config_option
@click.command()
@click.argument("first")
@click.argument("last")
@click.option("--every", default="6h", show_default=True, help="Spacing: 6h, 12h, 24h.")
@click.option("--variant", help="Model; by default that of the settings.")
@click.option("--members", type=int, help="Ensemble size; by default that of the settings.")
@click.option("--lead-hours", type=int, help="Length; by default that of the settings.")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--here", is_flag=True, help="Run the cycles in this process, without a server.")
@click.option("--max-active", default=2, show_default=True, type=click.IntRange(1, 16))
@click.option(
    "--dask",
    default="processes",
    show_default=True,
    help="Ingest in processes or threads of this machine, or a scheduler's address.",
)
def backfill(
    config: Path | None,
    first: str,
    last: str,
    every: str,
    dry_run: bool,
    here: bool,
    max_active: int,
    dask: str,
    **shape: Any,
) -> None:
    """Run the cycles from FIRST to LAST that are not published. Safe to start again."""
    from flows import backfill as work
    from flows import plan as planning

    settings = load_settings(config, **shape)
    if not (here or dry_run):
        _refuse_without_server()
    hours = planning.every_hours(every)
    cycles = planning.window(Cycle.parse(first), Cycle.parse(last), hours, utc_now())
    plan = planning.make_plan(cycles, settings, utc_now())
    for line in planning.plan_lines(plan):
        click.echo(line)
    planning.refuse_nothing_but_holes(plan)
    if dry_run:
        return
    with shown(Console(), settings.log_format) as report:
        unread = work.ingest_all(plan.to_fetch, settings, report, max_active, dask)
        skip = work.failed_histories(plan.cycles, unread, settings)
        if here:
            failures = work.run_here(plan, settings, report, skip)
        else:
            from flows.orchestration.backfill_runs import run_on_pool

            failures = run_on_pool(plan, settings, report, skip, max_active)
    for line in work.summary_lines(plan, failures):
        click.echo(line)
    if failures:
        raise click.exceptions.Exit(1)


def _refuse_without_server() -> None:
    """What the runs need of the server, asked before hours of ingest."""
    from flows.orchestration.backfill_runs import BACKFILL_DEPLOYMENT
    from flows.orchestration.runs import connected, find_deployment

    with connected() as client:
        find_deployment(client, BACKFILL_DEPLOYMENT)
