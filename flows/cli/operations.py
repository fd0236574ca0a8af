"""Commands of the engineer on call: status, reconcile, deploy, workers, alerts, the dead-man check.

`status`, `alerts` and `deadman` need no server: they read the stores.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import click

from flows.settings import load_settings
from mosaic_core.contract.errors import InputError

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deploy" / "prefect.yaml"


def _config(command: click.Command) -> click.Command:
    option = click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="TOML file with settings.",
    )
    return option(command)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@_config
@click.command()
@click.option("--cycles", default=12, show_default=True, help="Number of cycles, newest first.")
@click.option("--json", "as_data", is_flag=True, help="The whole table as JSON.")
def status(config: Path | None, cycles: int, as_data: bool) -> None:
    """What became of each cycle, stage by stage, and how soon it was visible."""
    from flows.status import WINDOW_CYCLES, as_json, freshness, rows
    from flows.status_text import matrix_lines

    settings, now = load_settings(config), _now()
    table = rows(settings, now, count=max(cycles, WINDOW_CYCLES))
    figures = freshness(table, settings.objective_hours)
    if as_data:
        click.echo(json.dumps(as_json(table[:cycles], figures, now), indent=1))
        return
    for line in matrix_lines(table[:cycles], figures):
        click.echo(line)


@_config
@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def reconcile(config: Path | None, dry_run: bool) -> None:
    """One pass: finish crashed, late and missing cycles, newest first; raise the alerts."""
    from flows.operations import reconcile_once
    from flows.runs import connected

    with connected() as client:
        done = reconcile_once(load_settings(config), client, _now(), dry_run=dry_run)
    for action in done.verdict.actions:
        click.echo(f"{action.kind} {action.cycle}: {action.reason}")
    click.echo(done.summary)


@click.command()
@click.option("--file", default=DEPLOYMENTS, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--pool-type",
    default="process",
    show_default=True,
    type=click.Choice(["process", "docker", "kubernetes"]),
    help="How workers start a run.",
)
@click.option("--gpus", default=1, show_default=True, type=click.IntRange(1), help="GPUs in all.")
def deploy(file: Path, pool_type: str, gpus: int) -> None:
    """Create or update the work pools, their queues and the deployments. Safe to repeat."""
    from flows.pools import apply_deployments, apply_pools, pools
    from flows.runs import connected

    if not file.is_file():
        raise InputError(
            "there is no deployment file",
            where=str(file),
            remedy="give --file; deploy/prefect.yaml of the sources is the one to start from",
        )
    with connected() as client:
        apply_pools(client, pool_type, gpus)
    apply_deployments(file)
    for pool in pools(gpus):
        queues = ", ".join(f"{queue.name} ({queue.priority})" for queue in pool.queues)
        click.echo(f"pool {pool.name}: {pool.limit} at once, queues {queues}")
    click.echo("next: mosaic-ops worker cpu, mosaic-ops worker gpu on the machines")


@click.command()
def workers() -> None:
    """Who serves each work pool, and what waits there. Exit code 1 when a pool has nobody."""
    from flows.pools import attendance
    from flows.runs import connected

    with connected() as client:
        found = list(attendance(client, _now()))
    for each in found:
        names = ", ".join(each.online) or "NOBODY"
        click.echo(f"pool {each.pool}: {names}; {each.waiting} runs wait")
    if not all(each.online for each in found):
        click.echo("remedy: mosaic-ops worker POOL on a machine of that pool", err=True)
        raise click.exceptions.Exit(1)


@_config
@click.command()
@click.option("--hours", type=float, help="Age that is allowed; by default 16.")
@click.option("--quiet", is_flag=True, help="Do not send the alert.")
def deadman(config: Path | None, hours: float | None, quiet: bool) -> None:
    """Is something being published at all? Reads the store only, for a cron outside Prefect."""
    from flows.watch import DEADMAN_HOURS, check_or_tell

    settings = load_settings(config)
    newest = check_or_tell(settings, _now(), hours or DEADMAN_HOURS, send=not quiet)
    click.echo(f"alive: {newest} is published")


@click.group()
def alerts() -> None:
    """The alerts that were raised."""


@_config
@alerts.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
def list_alerts(config: Path | None, everything: bool) -> None:
    """Alerts that hold now, oldest first."""
    from flows.alerts import records

    shown = [r for r in records(load_settings(config).alerts) if everything or r.over is None]
    for record in shown:
        ended = f", over {record.over:%Y-%m-%dT%H:%MZ}" if record.over else ""
        muted = f", muted until {record.muted_until:%H:%MZ}" if record.is_muted(_now()) else ""
        click.echo(f"{record.alert.key}: since {record.raised:%Y-%m-%dT%H:%MZ}{muted}{ended}")
        click.echo(f"  {record.alert.cause}\n  next: {record.alert.command}")
    if not shown:
        click.echo("all is well")


@_config
@alerts.command()
@click.argument("key")
@click.option("--hours", default=6.0, show_default=True, type=click.FloatRange(0, 168))
def mute(config: Path | None, key: str, hours: float) -> None:
    """Silence the alert KEY for some hours; it comes back if it still holds then."""
    from flows import alerts as memory

    until = _now() + dt.timedelta(hours=hours)
    memory.mute(key, until, load_settings(config).alerts)
    click.echo(f"{key} is silent until {until:%Y-%m-%dT%H:%MZ}")
