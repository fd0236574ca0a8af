"""`mosaic-ops synthetic`: a made-up atmosphere as GRIB files, and a mirror that serves them."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def synthetic() -> None:
    """Made-up analyses in ECMWF's layout, for tests and demonstrations. They are not weather."""


@synthetic.command()
@click.argument("root", type=click.Path(file_okay=False, path_type=Path))
@click.argument("cycles", nargs=-1, required=True)
@click.option(
    "--history",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Also make the analyses before each cycle, 6 h apart, this many in all.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which atmosphere.")
@click.option(
    "--decoys",
    type=click.Choice(["none", "light", "full"]),
    default="light",
    show_default=True,
    help="How many messages beside the model's 82.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
              help="Processes; each needs 0.9 GB.")  # fmt: skip
def make(
    root: Path, cycles: tuple[str, ...], history: int, seed: int, decoys: str, workers: int
) -> None:
    """Write the analyses of CYCLES (2026-11-23T00Z ...) below ROOT. What is there is kept."""
    from typing import cast

    from ingest.synthetic.decoys import Decoys
    from ingest.synthetic.tree import make_mirror_tree
    from mosaic_core.contract.cycle import Cycle

    wanted = sorted({past for text in cycles for past in Cycle.parse(text).history(history, 6)})
    files = make_mirror_tree(
        root, wanted, seed=seed, kind=cast(Decoys, decoys), workers=workers,
        progress=lambda cycle, done, total: click.echo(f"{done}/{total}  {cycle.label}"),
    )  # fmt: skip
    for file in files:
        click.echo(f"{file.data}  {file.data.stat().st_size / 1e6:.1f} MB")


@synthetic.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes any free one.",
)
@click.option("--ranges", default="multipart", show_default=True,
              type=click.Choice(["multipart", "refuse-multi", "whole-for-multi", "ignored"]),
              help="How it treats requests for byte ranges.")  # fmt: skip
def serve(root: Path, port: int, ranges: str) -> None:
    """Serve ROOT over HTTP on this machine until Ctrl-C."""
    from ingest.synthetic.answers import Ranges
    from ingest.synthetic.mirror import Mirror

    mirror = Mirror(root, port=port, ranges=Ranges(ranges))
    click.echo(f"serving {root} at {mirror.url} (Ctrl-C ends it)")
    mirror.serve_forever()
