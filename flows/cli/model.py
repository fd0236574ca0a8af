"""`mosaic-ops model` and `mosaic-ops weights`: the network against golden cases, its weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli.bench import bench
from flows.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mosaic_core.weights import Lock


@click.group()
def model() -> None:
    """Check the forecast model."""


@model.command()
@click.argument("case", type=click.Path(path_type=Path), metavar="DIR/NAME")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True
)
@click.option("--int8", is_flag=True, help="Two maps of every block in 8 bits.")
def parity(case: Path, device: str, dtype: str, int8: bool) -> None:
    """Compare the model with the golden case NAME in DIR; print one line of JSON.

    On a GPU, or with --int8, the forecast is the fast engine's.
    """
    from mosaic_core.parity import fast_engine, run_parity

    fast = int8 or device.startswith("cuda")
    engine = fast_engine(device, dtype, eight_bit=int8) if fast else None
    report = run_parity(case, device=device, dtype=dtype, engine=engine)
    click.echo(json.dumps(report.as_json()))


model.add_command(bench)


@click.group()
def weights() -> None:
    """Get and check the published weights (CC-BY-NC-4.0: no commercial use)."""


VARIANT = click.argument("variant", type=click.Choice(["era5", "hres"]))
DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: load_settings().weights,
    show_default="the weights of the settings",
    help="Where the files are kept.",
)
UNPICKLE = click.option(
    "--dangerously-unpickle",
    is_flag=True,
    help="Let the checkpoint run any code while it is read. Only for an author you trust.",
)


@weights.command()
@VARIANT
@DIRECTORY
@click.option(
    "--revision", help="Branch, tag or commit; by default the pinned one, or main at first."
)
@click.option("--endpoint", help="Another hub than the library's default (HF_ENDPOINT).")
@UNPICKLE
def fetch(
    variant: str,
    directory: Path,
    revision: str | None,
    endpoint: str | None,
    dangerously_unpickle: bool,
) -> None:
    """Fetch the published weights of VARIANT, resuming; verify them; keep a safetensors copy."""
    from mosaic_core import weights as published

    click.echo(published.LICENCE_NOTICE)
    with transfer_bars() as progress:
        lock = published.fetch_weights(
            directory,
            variant,
            revision=revision,
            endpoint=endpoint,
            progress=progress,
            dangerously_unpickle=dangerously_unpickle,
        )
    _print_lock(directory, lock)


@weights.command()
@VARIANT
@DIRECTORY
@UNPICKLE
def check(variant: str, directory: Path, dangerously_unpickle: bool) -> None:
    """Compare the files of VARIANT with their recorded digests and with the model."""
    from mosaic_core import weights as published

    click.echo(published.LICENCE_NOTICE)
    lock = published.check_weights(directory, variant, dangerously_unpickle=dangerously_unpickle)
    _print_lock(directory, lock)


@contextmanager
def transfer_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on the terminal; gives the function to tell name, bytes so far and size."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=size)
            bars.update(tasks[name], completed=done)

        yield show


def _print_lock(directory: Path, lock: Lock) -> None:
    click.echo(f"{directory}: {lock.repository} {lock.revision} = commit {lock.commit}")
    for name, entry in lock.files.items():
        click.echo(f"  {entry.sha256}  {entry.size:>13,}  {name}  (digest: {entry.verified})")
