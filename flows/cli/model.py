"""`mosaic-ops model` and `mosaic-ops weights`: the network against golden cases, its weights."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def model() -> None:
    """Check the forecast model."""


@model.command()
@click.argument("case", type=click.Path(path_type=Path), metavar="DIR/NAME")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True
)
def parity(case: Path, device: str, dtype: str) -> None:
    """Compare the model with the golden case NAME in DIR; print one line of JSON."""
    from mosaic_core.parity import run_parity

    report = run_parity(case, device=device, dtype=dtype)
    click.echo(json.dumps(report.as_json()))


@click.group()
def weights() -> None:
    """Get and check the published weights (CC-BY-NC-4.0: no commercial use)."""
