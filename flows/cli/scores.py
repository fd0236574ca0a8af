"""Commands on the scores of published forecasts."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from flows.cli.operations import utc_now
from flows.progress import BarReporter
from flows.settings import load_settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError

_config = click.option("--config", type=click.Path(path_type=Path), help="TOML file of settings.")
_COLUMNS = ("lead_hours", "count", "crps", "rmse", "spread", "spread_skill", "bias", "crpss")


@_config
@click.command()
@click.option("--since", help="Oldest analysis to score against; by default one forecast back.")
def verify(config: Path | None, since: str | None) -> None:
    """Score every published forecast against the analyses that came after it. Safe to repeat."""
    from flows.verify import verify as score

    settings = load_settings(config)
    with BarReporter(Console()) as report:
        done = score(settings, report, Cycle.parse(since) if since else None)
    click.echo(done.summary)
    if done.faults:
        raise click.exceptions.Exit(1)


@_config
@click.command()
@click.option("--field", default="geopotential_500", show_default=True)
@click.option("--region", "region_name", default="global", show_default=True)
@click.option("--days", default=30, show_default=True, type=click.IntRange(1))
@click.option(
    "--csv", "table_file", type=click.Path(path_type=Path), help="Every score, long form."
)
@click.option("--figure", type=click.Path(path_type=Path), help="Scores against lead, PNG or SVG.")
@click.option("--card", type=click.Path(path_type=Path), help="The scorecard, PNG or SVG.")
def scores(
    config: Path | None,
    field: str,
    region_name: str,
    days: int,
    table_file: Path | None,
    figure: Path | None,
    card: Path | None,
) -> None:
    """How good the forecasts of the last days were: one field as a table, all as figures."""
    from flows.verify import period_told, recent_scores
    from mosaic_core.contract.files import write_atomic
    from postprocess.objects.root import open_root
    from postprocess.plots.scores import scorecard_figure, skill_figure
    from postprocess.plots.style import Stamp, save
    from postprocess.scores.ledger import scored_times
    from postprocess.scores.regions import region
    from postprocess.scores.summary import field_names, long_table

    settings = load_settings(config)
    root, place = open_root(settings.published), region(region_name)
    table = recent_scores(root, days)
    if table.empty:
        raise InputError(
            "nothing is scored yet", where=root.address, remedy="score first: `mosaic-ops verify`"
        )
    own = table[(field_names(table) == field) & (table["region"] == place.name)]
    if own.empty:
        names = ", ".join(sorted(set(field_names(table))))
        raise InputError(f"no scores of {field!r}", remedy=f"choose from {names}")
    period = period_told(root, utc_now(), days)
    click.echo(f"{field} ({own['units'].iloc[0]}), {place.long_name}, {period}")
    click.echo(own[list(_COLUMNS)].to_string(index=False, float_format="{:.4g}".format))
    stamp = Stamp(scored_times(root)[-1].label, "Mosaic", settings.notice or "")
    if table_file is not None:
        write_atomic(table_file, long_table(table).to_csv(index=False).encode())
    if figure is not None:
        save(skill_figure(table, stamp, region_name=place.name), figure)
    if card is not None:
        save(scorecard_figure(table, stamp), card)
