"""`mosaic-ops model bench`: the speed of the rollout on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mosaic_core.benchmark import BenchReport


@click.command()
@click.option("--variant", type=click.Choice(["era5", "hres", "mini"]), required=True)
@click.option("--members", default=24, show_default=True)
@click.option("--steps", default=10, show_default=True)
@click.option("--weights", type=click.Path(path_type=Path), help="A bundle; else random weights.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda|cuda:N")
@click.option("--gpus", default=1, show_default=True, help="Split the members over this many.")
@click.option("--batch-size", type=int, help="Members at a time; by default what suits.")
@click.option(
    "--precision",
    type=click.Choice(["float16", "int8"]),
    default="float16",
    show_default=True,
    help="Of matrices on a GPU.",
)
@click.option("--commit", default="", help="Of the code, for the report; by default asked of git.")
@click.option("--results", type=click.Path(path_type=Path), help="Also write the report here.")
def bench(
    variant: str,
    members: int,
    steps: int,
    weights: Path | None,
    device: str,
    gpus: int,
    batch_size: int | None,
    precision: str,
    commit: str,
    results: Path | None,
) -> None:
    """Time a rollout from the initial state on the host to the last step on the host."""
    from flows.provenance import code_version
    from mosaic_core.benchmark import random_bundle, run_benchmark
    from mosaic_core.contract.files import write_json_atomic

    with TemporaryDirectory() as directory:
        bundle = weights or random_bundle(Path(directory), variant)
        report = run_benchmark(
            variant,
            weights=bundle,
            members=members,
            steps=steps,
            device=device,
            gpus=gpus,
            batch_size=batch_size,
            precision=precision,
            commit=commit or code_version(),
        )
    if results:
        write_json_atomic(results, report.as_json())
    click.echo(table(report))
    click.echo(json.dumps(report.as_json()))


def table(report: BenchReport) -> str:
    """The report as lines of name and value."""
    rows = {
        "device": f"{report.gpus} x {report.device}",
        "versions": ", ".join(f"{name} {value}" for name, value in report.versions.items()),
        "members x steps": f"{report.members} x {report.steps}, {report.batch_size} at a time",
        "precision": report.precision,
        "commit": report.commit,
        "ms per member-step": report.ms_per_member_step,
        "TFLOP/s": f"{report.tflops:.4g}",
        "share of a matmul": f"{report.share_of_matmul:.0%} of {report.matmul_tflops:.4g} TFLOP/s",
        "first step (s)": f"{report.first_step_seconds}, again {report.again_seconds}",
        "whole rollout (s)": report.rollout_seconds,
        "peak memory (GiB)": report.peak_memory_gib,
    }
    return "\n".join(f"{name:22} {value}" for name, value in rows.items())
