"""`mosaic-ops demo`, `run` and `settings`."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from flows.progress import BarReporter, shown
from flows.settings import PREFIX, Settings, load_settings
from flows.timetable import due_cycle, refuse_future
from mosaic_core.contract.cycle import Cycle

if TYPE_CHECKING:
    from flows.demo import Demo
    from flows.forecast import Outcome


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for everything the demonstration makes.",
)
@click.option(
    "--members", default=8, show_default=True, type=click.IntRange(2, 100), help="Ensemble members."
)
@click.option(
    "--steps", default=8, show_default=True, type=click.IntRange(1, 60), help="Steps of 6 hours."
)
@click.option("--prefect", is_flag=True, help="Show the same run in Prefect's pages.")
@click.option("--again", is_flag=True, help="Forget the results of an earlier demonstration first.")
def demo(output: Path, members: int, steps: int, prefect: bool, again: bool) -> None:
    """Run a whole forecast cycle on a made-up atmosphere with a small random model.

    No network, no GPU, no account. The maps are not weather.
    """
    from flows.demo import NOTICE, Demo, forget_results

    console = Console()
    console.print(f"[bold yellow]{NOTICE}[/]\n")
    chosen = Demo(output.resolve(), members, steps)
    if again:
        forget_results(chosen)
    if prefect:
        _demo_in_prefect(chosen, console)
    else:
        _demo(chosen, console)


def _demo(chosen: Demo, console: Console) -> None:
    from flows.demo import run_demo

    started = time.monotonic()
    with BarReporter(console) as report:
        outcome = run_demo(chosen, report)
    _show(console, outcome, time.monotonic() - started)


def _demo_in_prefect(chosen: Demo, console: Console) -> None:
    from flows.demo import run_demo
    from flows.orchestration.deployed import run_in_prefect
    from flows.orchestration.server import local_server

    started = time.monotonic()
    console.print("starting a Prefect server on this machine (half a minute the first time) ...")
    with local_server(chosen.folder / "prefect") as address:
        with BarReporter(console) as report:
            outcome = run_demo(
                chosen,
                report,
                lambda cycle, settings, echo: run_in_prefect(cycle, settings, address, echo),
            )
        _show(console, outcome, time.monotonic() - started)
        console.print(f"\nThe run in Prefect: [bold]{address.removesuffix('/api')}/runs[/]")
        if console.is_terminal:
            click.pause("Look at it in a browser; press any key here to stop the server ...")


@click.command()
@click.argument("cycle", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--variant", help="hres (6-h steps), era5 (24-h steps) or mini.")
@click.option("--members", type=int, help="Ensemble size.")
@click.option("--lead-hours", type=int, help="Length of the forecast in hours.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@click.option("--batch-size", type=int, help="Members computed at once.")
@click.option("--precision", help="Of matrices on a GPU: float16, or int8 for some (Hopper).")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of all that is made.")
@click.option("--published-root", help="Folder, s3:// or gs:// that readers look at.")
@click.option("--weights-dir", type=click.Path(path_type=Path), help="Folder of the weights.")
@click.option("--mirror", "mirrors", multiple=True, help="Name, or NAME=ADDRESS; repeatable.")
@click.option("--again", is_flag=True, help="Also when it is published: the better run stays.")
def run(
    cycle: str | None, config: Path | None, mirrors: tuple[str, ...], again: bool, **options: Any
) -> None:
    """Bring one CYCLE (such as 2026-11-23T00Z) from the analysis to the published Zarr.

    Without CYCLE: the newest whose analysis should be out. Running a published cycle again does
    nothing; running an interrupted one finishes it. With --again a published cycle is computed with
    these settings too, and readers get the run with more members and hours, of equals the later.
    Without a GPU a model of full size must be asked for with --device cpu: it takes days.
    """
    from flows.forecast import forecast_cycle
    from mosaic_core.model.placement import refuse_days_on_a_cpu

    settings = load_settings(config, mirrors=mirrors or None, **options)
    now = dt.datetime.now(dt.UTC)
    chosen = refuse_future(Cycle.parse(cycle), now) if cycle else due_cycle(now)
    refuse_days_on_a_cpu(settings.weights, settings.variant, settings.device)
    console = Console()
    started = time.monotonic()
    with shown(console, settings.log_format) as report:
        outcome = forecast_cycle(chosen, settings, report, again=again)
    if settings.log_format == "text":
        _show(console, outcome, time.monotonic() - started)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def settings(config: Path | None, as_json: bool) -> None:
    """Every setting: its value here, its meaning, the environment variable that sets it."""
    found = load_settings(config)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    table = Table("setting", "value here", "environment variable", "meaning")
    for name, entry in Settings.model_fields.items():
        value = getattr(found, name)
        table.add_row(name, str(value), f"{PREFIX}{name.upper()}", entry.description)
    Console().print(table)


def _show(console: Console, outcome: Outcome, seconds: float) -> None:
    """Where everything is, and what to type next."""
    if not outcome.made:
        return
    address = outcome.address
    console.print(
        f"\n[bold green]Published {outcome.cycle}[/] after {seconds:.0f} s in",
        address,
        soft_wrap=True,
    )
    for figure in outcome.figures:
        console.print(f"  figure  {figure}", soft_wrap=True, highlight=False)
    console.print("\nOpen it:", style="bold")
    console.print(
        f"  python -c 'import xarray; print(xarray.open_zarr(\"{address}/forecast.zarr\"))'",
        soft_wrap=True,
        highlight=False,
    )
    console.print("Go on:", style="bold")
    console.print("  mosaic-ops --help          every command")
    console.print("  mosaic-ops settings        what can be set, and how")
