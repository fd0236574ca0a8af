"""How good the forecasts were: scores against lead time, and a card of everything at a glance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosaic_core.contract.errors import InputError
from postprocess.plots.style import COLOURS, GREY, Stamp, new_figure
from postprocess.scores.regions import REGIONS, region

_PANELS = (
    ("geopotential", 500),
    ("mean_sea_level_pressure", None),
    ("temperature", 850),
    ("2m_temperature", None),
    ("wind_speed", 850),
    ("10m_wind_speed", None),
)
_LINES = (
    ("rmse", "error of the ensemble mean", COLOURS[0], "-"),
    ("spread", "spread", COLOURS[1], "--"),
    ("crps", "CRPS", COLOURS[2], "-"),
    ("persistence_rmse", "error of persistence", GREY, ":"),
)
_OWN_ANALYSIS = "against ECMWF's own analysis at 1.5°: leads of a day or less are flattered"


def skill_figure(scores: pd.DataFrame, stamp: Stamp, *, region_name: str = "global") -> Figure:
    """Error, spread, CRPS and persistence against lead, six headline fields of one region.

    `scores` as postprocess.scores.summary.finished_scores gives them by lead; `stamp.cycle` is
    the newest analysis that was scored against. InputError when the region has no scores.
    """
    own = scores[scores["region"] == region_name]
    place = region(region_name).long_name
    if own.empty:
        raise InputError(
            f"nothing is scored for {region_name}",
            where="scores",
            remedy="score first: `mosaic-ops verify`",
        )
    figure = new_figure(10.0, 6.4, f"Scores, {place}", _line(own, stamp), stamp)
    panels = figure.subplots(2, 3, sharex=True)
    for axes, (variable, level) in zip(panels.T.ravel(), _PANELS, strict=True):
        _draw_lines(axes, _field(own, variable, level), _name(variable, level))
    panels[0, 0].legend(fontsize=7.5, loc="center right")
    for axes in panels[-1]:
        axes.set_xlabel("lead, days")
    return figure


def scorecard_figure(scores: pd.DataFrame, stamp: Stamp) -> Figure:
    """Skill against persistence (colour) of every scored field, lead and region.

    `scores` as postprocess.scores.summary.finished_scores gives them by lead. InputError when
    there are none.
    """
    if scores.empty:
        raise InputError(
            "nothing is scored", where="scores", remedy="score first: `mosaic-ops verify`"
        )
    fields = _fields(scores)
    leads = sorted(set(scores["lead_hours"]))
    height = 1.8 + 0.24 * len(fields)
    title = "Scorecard: 1 - CRPS / mean absolute error of persistence"
    figure = new_figure(12.0, height, title, _line(scores, stamp), stamp)
    panels = figure.subplots(1, len(REGIONS), sharey=True)
    for axes, each in zip(panels, REGIONS, strict=True):
        table = scores[scores["region"] == each.name]
        cells = [_skill(table, variable, level, leads) for variable, level in fields]
        image = axes.imshow(cells, aspect="auto", cmap="PuOr", vmin=-1, vmax=1)
        axes.set_title(each.long_name.partition(",")[0], fontsize=8.5)
        ticks = [index for index, hours in enumerate(leads) if hours % 48 == 0]
        axes.set_xticks(ticks or [0], [f"{leads[index] / 24:g}" for index in ticks or [0]])
        axes.set_xlabel("lead, days", fontsize=8)
    panels[0].set_yticks(range(len(fields)), [_name(*field) for field in fields], fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=0.9)
    bar.set_label("skill: 1 perfect, 0 no better, purple better")
    return figure


def _draw_lines(axes: Axes, table: pd.DataFrame, name: str) -> None:
    days = table["lead_hours"] / 24
    for metric, label, colour, style in _LINES:
        axes.plot(days, table[metric], style, color=colour, label=label, marker=".", markersize=3)
    axes.set_ylim(bottom=0)
    units = str(table["units"].iloc[0]) if len(table) else ""
    axes.set_title(f"{name}, {units}", fontsize=9)
    axes.grid(alpha=0.3, linewidth=0.4)


def _skill(table: pd.DataFrame, variable: str, level: int | None, leads: list[int]) -> np.ndarray:
    found = _field(table, variable, level).set_index("lead_hours")["crpss"]
    return found.reindex(leads).to_numpy(dtype=float)


def _fields(scores: pd.DataFrame) -> list[tuple[str, int | None]]:
    """Variable and level of every scored field, in order."""
    table = scores[["variable", "level_hpa"]].drop_duplicates()
    table = table.sort_values(["variable", "level_hpa"])
    levels = [None if pd.isna(level) else int(level) for level in table["level_hpa"]]
    return list(zip(table["variable"], levels, strict=True))


def _field(table: pd.DataFrame, variable: str, level: int | None) -> pd.DataFrame:
    of = table["level_hpa"].isna() if level is None else table["level_hpa"] == level
    return table[(table["variable"] == variable) & of].sort_values("lead_hours")


def _name(variable: str, level: int | None) -> str:
    text = variable.replace("_component_of", "").replace("_", " ")
    return text if level is None else f"{text} {level} hPa"


def _line(scores: pd.DataFrame, stamp: Stamp) -> str:
    count = int(scores["count"].max())
    return f"up to {count} forecasts, until {stamp.cycle}, {_OWN_ANALYSIS}   {stamp.source}"
