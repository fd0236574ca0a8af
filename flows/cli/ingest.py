"""`mosaic-ops ingest | sources | gate | regrid`: analyses by hand, with the stages' functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flows.settings import Settings
    from ingest.gate.reference import Reference
    from ingest.gate.verdict import Verdict
    from ingest.plan import Stretch
    from ingest.sources import Source
    from ingest.stores import StoreSource

Progress = Callable[[int, int], None]

_CONFIG = click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
_DATA_ROOT = click.option(
    "--data-root", type=click.Path(path_type=Path), help="Folder of downloads and archive."
)
_WEIGHTS = click.option(
    "--weights",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the model's statistics and static fields, for the gate's comparisons.",
)


@contextmanager
def _bar(title: str, unit: str = "") -> Iterator[Progress]:
    """A bar on stderr that gets (done, total)."""
    from rich.console import Console

    from flows.progress import BarReporter

    with BarReporter(Console(stderr=True)) as reporter, reporter.stage(title) as advance:
        yield lambda done, total: advance(done, total, unit)


def _settings(config: Path | None, data_root: Path | None, weights: Path | None) -> Settings:
    from flows.settings import load_settings

    return load_settings(config, data_root=data_root, weights_dir=weights)


def _reference(settings: Settings) -> Reference | None:
    """What the gate compares with, from the weights' folder; None while there are no weights."""
    from ingest.gate.reference import Reference

    stats = settings.weights / f"norm_stats_{settings.variant}.npz"
    return Reference.load(settings.weights, settings.variant) if stats.exists() else None


def _sources(names: tuple[str, ...]) -> list[Source | StoreSource]:
    """Mirrors and stores by name; an address is a store if it ends in .zarr, else a mirror."""
    from ingest.sources import Source, source_named
    from ingest.stores import WEATHERBENCH, StoreSource

    known: dict[str, Source | StoreSource] = {store.name: store for store in WEATHERBENCH}
    for name in names:
        if name.rstrip("/").endswith(".zarr"):
            known[name] = StoreSource(name, name)
        elif "://" in name.partition("=")[0]:
            known[name] = Source("custom", name)
    return [known[name] if name in known else source_named(name) for name in names]


class _CycleByDefault(click.Group):
    """`ingest CYCLE` is `ingest cycle CYCLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `cycle` where no subcommand is named."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["cycle", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_CycleByDefault)
def ingest() -> None:
    """Bring analyses into the archive: `ingest CYCLE`, or `ingest files PATHS...`."""


@ingest.command()
@click.argument("when", metavar="CYCLE")
@click.option(
    "--source",
    "names",
    multiple=True,
    metavar="NAME|URL",
    help="Mirror or store by name (ecmwf-opendata: through ECMWF's client), NAME=ADDRESS or an "
    "address in ECMWF's layout, or a .zarr; repeatable.",
)
@click.option("--correct", metavar="REASON", help="Replace an archived analysis; the reason.")
@click.option("--fill", is_flag=True, help="Take the 6-h forecast valid then, to fill a gap.")
@_CONFIG
@_DATA_ROOT
@_WEIGHTS
def cycle(
    when: str,
    names: tuple[str, ...],
    correct: str | None,
    fill: bool,
    config: Path | None,
    data_root: Path | None,
    weights: Path | None,
) -> None:  # fmt: skip
    """Fetch, regrid, check and archive the analysis of CYCLE (like 2026-11-23T00Z)."""
    from ingest.intake import take_in
    from mosaic_core.contract.cycle import Cycle

    wanted, settings = Cycle.parse(when), _settings(config, data_root, weights)
    with _bar(f"fetching {wanted}", "MB") as progress:
        intake = take_in(
            wanted,
            _sources(names or settings.mirrors),
            downloads=settings.downloads,
            archive=settings.archive,
            reference=_reference(settings),
            correct=correct,
            fills=settings.fills if fill else None,
            progress=lambda done, total: progress(done // 1_000_000, total // 1_000_000),
        )
    if intake.verdict is None:
        click.echo(f"{wanted} is archived already, from {intake.source}: nothing done")
        return
    _print_verdict(intake.verdict)
    click.echo(f"archived {wanted} from {intake.source} in {intake.store.address}")
    if correct:
        click.echo(f"scores made against the old one: mosaic-ops verify --since {wanted}")


@ingest.command()
@click.argument("paths", nargs=-1, required=True)
@_CONFIG
@_DATA_ROOT
@_WEIGHTS
def files(
    paths: tuple[str, ...], config: Path | None, data_root: Path | None, weights: Path | None
) -> None:
    """Check and archive every analysis in GRIB files or Zarr stores of your own.

    PATHS are local or addresses that fsspec reads (gs://, s3://, https://). GRIB may be of edition
    1 or 2, on any global latitude-longitude grid, or on a Gaussian one, then read with cfgrib.
    Stores are laid out like WeatherBench 2.
    """
    from ingest.admission import admit
    from ingest.user_files import analyses_in
    from mosaic_core.contract.cycle import Cycle

    settings = _settings(config, data_root, weights)
    reference = _reference(settings)
    for path in paths:
        for analysis in analyses_in(path):
            _, verdict = admit(settings.archive, analysis, reference)
            label = Cycle.from_datetime64(analysis["time"].values[0]).label
            reader = analysis.attrs.get("reader", "Zarr")
            click.echo(
                f"archived {label} from {path} (read with {reader}): gate {verdict.outcome.value}"
            )


@click.group()
def sources() -> None:
    """Where analyses can come from."""


@sources.command()
@click.argument("start", metavar="START")
@click.argument("end", metavar="END")
@click.option("--every", "hours", default=6, show_default=True, help="Hours between cycles.")
def plan(start: str, end: str, hours: int) -> None:
    """What is available of the cycles START..END, from where, how many bytes, and what is not.

    From the tables of mirrors, eras and stores; nothing is fetched.
    """
    from datetime import UTC, datetime

    from ingest.plan import stretches, whereabouts, window
    from mosaic_core.contract.cycle import Cycle

    now = datetime.now(UTC)
    rows = [whereabouts(c, now) for c in window(Cycle.parse(start), Cycle.parse(end), hours)]
    for stretch in stretches(rows):
        click.echo(_told(stretch))
    have = [row for row in rows if row.sources]
    click.echo(
        f"{len(have)} of {len(rows)} cycles are available, "
        f"{sum(row.bytes for row in have) / 1e9:.2f} GB from the first source of each"
    )


def _told(stretch: Stretch) -> str:
    known = stretch.availability
    span = f"{stretch.first} to {stretch.last}, {stretch.count} cycles"
    if known.sources:
        doubt = "" if known.proven else " (unproven: the index of each cycle decides)"
        volume = f"{known.bytes / 1e6:.1f} MB each"
        return f"{span}: {', '.join(known.sources)}, {volume}{doubt}"
    reasons = "".join(f"\n    {name}: {reason}" for name, reason in known.reasons.items())
    return f"{span}: NOT AVAILABLE{reasons}"


@click.command()
@click.argument("target", metavar="FILE_OR_CYCLE")
@click.option("--plot", "figure", type=click.Path(path_type=Path), help="PNG or SVG to write.")
@click.option("--all", "everything", is_flag=True, help="Every finding, not the worst per check.")
@_CONFIG
@_DATA_ROOT
@_WEIGHTS
def gate(
    target: str,
    figure: Path | None,
    everything: bool,
    config: Path | None,
    data_root: Path | None,
    weights: Path | None,
) -> None:
    """Judge an archived CYCLE, or the fields in a GRIB file or Zarr store.

    Exits with 4 when the gate refuses.
    """
    if figure is not None:
        from mosaic_core.contract.files import figure_form

        figure_form(figure)
    settings = _settings(config, data_root, weights)
    verdict = _judged(target, settings)
    _print_verdict(verdict, everything=everything)
    if figure is not None:
        from ingest.gate.plot import plot_verdict

        plot_verdict(verdict, target, figure)
        click.echo(f"figure: {figure}")
    verdict.require(target)


def _judged(target: str, settings: Settings) -> Verdict:
    from ingest.admission import examine
    from ingest.archive import read_analysis
    from ingest.gate.judge import judge
    from ingest.user_files import planes_in
    from mosaic_core.contract.cycle import Cycle
    from mosaic_core.contract.errors import InputError

    reference = _reference(settings)
    if Path(target).exists() or "://" in target:
        return judge(planes_in(target), reference=reference)
    try:
        wanted = Cycle.parse(target)
    except InputError:
        raise InputError(
            f"{target!r} is neither a file nor a cycle",
            remedy="give a path, an address, or a cycle like 2026-11-23T00Z",
        ) from None
    return examine(settings.archive, read_analysis(settings.archive, wanted.init_time), reference)


def _print_verdict(verdict: Verdict, *, everything: bool = False) -> None:
    findings = verdict.findings if everything else verdict.worst_by_check()
    width = max((len(f"{f.check} {f.subject}") for f in findings), default=0)
    for finding in findings:
        name = f"{finding.check} {finding.subject}".ljust(width)
        click.echo(
            f"{finding.outcome.value:9} {name} {finding.value:>11.4g} "
            f"limit {finding.limit:<9.4g} {finding.reason}"
        )
    click.echo(f"verdict: {verdict.outcome.value}")


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
