"""`mosaic-ops ingest | sources | gate | regrid`: analyses by hand, with the stages' functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

Progress = Callable[[int, int], None]


@contextmanager
def _bar(title: str, unit: str = "") -> Iterator[Progress]:
    """A bar on stderr that gets (done, total)."""
    from rich.console import Console

    from flows.progress import BarReporter

    with BarReporter(Console(stderr=True)) as reporter, reporter.stage(title) as advance:
        yield lambda done, total: advance(done, total, unit)


@click.command()
@click.argument("source", metavar="IN.grib2", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.nc", type=click.Path(path_type=Path))
def regrid(source: Path, target: Path) -> None:
    """Regrid every message of a global latitude-longitude GRIB file to 1.5 degrees, as NetCDF.

    Variables are float32 (latitude south to north, longitude 0..358.5), named shortName or
    shortName_level.
    """
    from ingest.regrid_file import regrid_file

    with _bar(f"regridding {source.name}", "messages") as progress:
        names = regrid_file(source, target, progress=progress)
    click.echo(f"{len(names)} fields on 240 x 121 in {target}: {', '.join(names)}")
