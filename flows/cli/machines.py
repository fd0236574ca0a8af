"""Commands of the machines: deploy, server, workers and the canary they start with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flows.cli.operations import config_option, utc_now
from flows.settings import load_settings
from mosaic_core.contract.errors import InputError, ModelError

SOURCES = Path(__file__).resolve().parents[2] / "deploy" / "prefect.yaml"
INSTALLED = Path(__file__).resolve().parents[1] / "prefect.yaml"  # where the wheel puts it
DEPLOYMENTS = SOURCES if SOURCES.exists() else INSTALLED


@click.command()
@click.option("--file", default=DEPLOYMENTS, show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--pool-type",
    default="process",
    show_default=True,
    type=click.Choice(["process", "docker", "kubernetes"]),
    help="How workers start a run.",
)
@click.option(
    "--gpus", type=click.IntRange(1), help="GPUs in all; by default as many as before, at first 1."
)
@click.option("--alert-block", help="Notification block TYPE/NAME for Prefect's own automations.")
def deploy(file: Path, pool_type: str, gpus: int | None, alert_block: str | None) -> None:
    """Create or update the work pools, their queues and the deployments. Safe to repeat."""
    from flows.orchestration.automations import apply_automations
    from flows.orchestration.pools import apply_deployments, apply_pools
    from flows.orchestration.runs import connected

    if not file.is_file():
        raise InputError(
            "there is no deployment file",
            where=str(file),
            remedy="give --file; deploy/prefect.yaml of the sources is the one to start from",
        )
    with connected() as client:
        automations = apply_automations(client, alert_block) if alert_block else ()
        pools = apply_pools(client, pool_type, gpus)
    apply_deployments(file)
    for name in automations:
        click.echo(f"automation {name!r} tells {alert_block}")
    for pool in pools:
        queues = ", ".join(f"{queue.name} ({queue.priority})" for queue in pool.queues)
        click.echo(f"pool {pool.name}: {pool.limit} at once, queues {queues}")
    click.echo("next: mosaic-ops worker cpu, mosaic-ops worker gpu on the machines")


@click.command()
def workers() -> None:
    """Who serves each work pool, and what waits there. Exit code 1 when a pool has nobody."""
    from flows.orchestration.pools import attendance
    from flows.orchestration.runs import connected

    with connected() as client:
        found = list(attendance(client, utc_now()))
    for each in found:
        names = ", ".join(each.online) or "NOBODY"
        click.echo(f"pool {each.pool}: {names}; {each.waiting} runs wait")
    if not all(each.online for each in found):
        click.echo("remedy: mosaic-ops worker POOL on a machine of that pool", err=True)
        raise click.exceptions.Exit(1)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535))
def server(host: str, port: int) -> None:
    """A Prefect server with the settings that unattended runs need."""
    from flows.orchestration.service import database_kind, replace_process, server_command

    command, environment = server_command(host, port, os.environ)
    click.echo(f"interface: http://{host}:{port}  database: {database_kind(environment)}")
    replace_process(command, environment)


@config_option
@click.command()
@click.argument("pool", type=click.Choice(["cpu", "gpu"]))
@click.option("--type", "kind", default="process", show_default=True, help="Type of the pool.")
@click.option("--name", help="Name of the worker; by default made up.")
@click.option("--health-port", type=click.IntRange(1, 65535), help="Answer GET /health there.")
@click.option("--no-canary", is_flag=True, help="Take runs without looking at the machine first.")
def worker(
    config: Path | None,
    pool: str,
    kind: str,
    name: str | None,
    health_port: int | None,
    no_canary: bool,
) -> None:
    """A worker for POOL. On the GPU pool it takes runs only when its canary is well."""
    from flows.orchestration.pools import attendance
    from flows.orchestration.runs import connected, refuse_skew
    from flows.orchestration.service import replace_process, worker_command

    load_settings(config)  # what is wrong with them is said here, not by every run
    with connected() as client:
        list(attendance(client, utc_now()))  # the pools are there and the password is right
        refuse_skew(utc_now())
    if pool == "gpu" and not no_canary:
        _examine(config, record=False)
    replace_process(*worker_command(pool, kind, name, health_port, os.environ))


@config_option
@click.command()
@click.option("--record", is_flag=True, help="Accept what is found as the golden.")
def canary(config: Path | None, record: bool) -> None:
    """Is this machine fit? Digests of the weights, the GPU, a rollout against its golden."""
    _examine(config, record)


def _examine(config: Path | None, record: bool) -> None:
    from flows.watch.canary import examine, tell

    settings = load_settings(config)
    verdict = examine(settings, record=record)
    tell(verdict, settings, utc_now())
    for line in verdict.lines:
        click.echo(line)
    if not verdict.is_fit:
        raise ModelError(
            "this machine is not fit to run the model",
            where="; ".join(verdict.faults),
            remedy="correct it, then mosaic-ops canary",
        )
