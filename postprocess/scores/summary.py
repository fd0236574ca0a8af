"""Scores of any period, region or lead, made of the kept sums; and whether they drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from postprocess.scores.fields import BASELINE, STATISTICS

FIELD = ("variable", "level_hpa", "units")
BY_LEAD = (*FIELD, "region", "lead_hours")
METRICS = {
    "crps": "fair continuous ranked probability score",
    "rmse": "root mean square error of the ensemble mean, unbiased by the number of members",
    "mae": "mean absolute error of the ensemble mean",
    "bias": "mean error of the ensemble mean",
    "member_rmse": "root mean square error of single members",
    "spread": "root mean ensemble variance (ddof 1)",
    "spread_skill": "spread / rmse: 1 is ideal, below 1 is overconfident",
    "persistence_rmse": "root mean square error of the analysis at the initial time",
    "crpss": "1 - crps / mean absolute error of persistence: 1 is perfect, 0 no better",
}

# A day has four analyses: their median does not call for one odd forecast.
_RECENT = 4
_LEAST = 28
_TRAILING = np.timedelta64(60, "D")
_DEVIATIONS = 4.0
WATCHED_LEADS = (24, 72, 120, 240)


@dataclass(frozen=True)
class Drift:
    """A score that left its own past: the last day's median against the 60 days before."""

    variable: str
    level_hpa: int | None
    lead_hours: int
    recent: float
    usual: float
    deviation: float

    def __str__(self) -> str:
        level = f" {self.level_hpa} hPa" if self.level_hpa else ""
        away = (self.recent - self.usual) / self.deviation
        return (
            f"crps of {self.variable}{level} at +{self.lead_hours} h is {self.recent:.3g}, "
            f"{away:.1f} standard deviations above its usual {self.usual:.3g}"
        )


def finished_scores(sums: pd.DataFrame, by: Sequence[str] = BY_LEAD) -> pd.DataFrame:
    """METRICS of the kept sums, one row a group of `by`, with `count` forecasts in each.

    Means are area means over the region and all forecasts of the group; roots are taken last.
    Skill is taken over the forecasts that persistence was scored for.
    """
    unknown = [name for name in by if name not in sums.columns]
    if unknown:
        raise InputError(f"cannot group scores by {', '.join(unknown)}", remedy=f"use {BY_LEAD}")
    has_baseline = sums["persistence_absolute"].notna()
    paired = sums.assign(
        paired_weight=sums["weight"].where(has_baseline),
        paired_crps=sums["crps"].where(has_baseline),
    )
    summed = ["weight", *STATISTICS, *BASELINE, "paired_weight", "paired_crps"]
    grouped = paired.groupby(list(by), dropna=False, sort=True)
    total = grouped[summed].sum(min_count=1)
    return _metrics(total).assign(count=grouped.size()).reset_index()


def _metrics(total: pd.DataFrame) -> pd.DataFrame:
    mean = total[list(STATISTICS)].div(total["weight"], axis=0)
    baseline = total[list(BASELINE)].div(total["paired_weight"], axis=0)
    rmse = np.sqrt(mean["mean_squared"].where(mean["mean_squared"] >= 0))
    spread = np.sqrt(mean["variance"])
    return pd.DataFrame(
        {
            "crps": mean["crps"],
            "rmse": rmse,
            "mae": mean["mean_absolute"],
            "bias": mean["mean_error"],
            "member_rmse": np.sqrt(mean["member_squared"]),
            "spread": spread,
            "spread_skill": spread / rmse,
            "persistence_rmse": np.sqrt(baseline["persistence_squared"]),
            "crpss": 1 - total["paired_crps"] / total["persistence_absolute"],
        }
    )


def long_table(scores: pd.DataFrame) -> pd.DataFrame:
    """The finished scores with one row a number: the columns `metric` and `value`."""
    keys = [name for name in scores.columns if name not in METRICS]
    return scores.melt(id_vars=keys, value_vars=list(METRICS), var_name="metric")


def field_names(scores: pd.DataFrame) -> pd.Series[str]:
    """The field of each row in one word: 'geopotential_500', '2m_temperature'."""
    level = scores["level_hpa"].map(lambda hpa: "" if pd.isna(hpa) else f"_{hpa}")
    names: pd.Series[str] = scores["variable"] + level
    return names


def rank_histogram(sums: pd.DataFrame) -> NDArray[np.float64]:
    """Share of the truth's ranks relative to a flat histogram, (members + 1,).

    InputError when the rows are of ensembles of different size, or there are none.
    """
    sizes = sorted(set(sums["members"]))
    if len(sizes) != 1:
        raise InputError(
            f"ranks of ensembles with {sizes or 'no'} members do not add up",
            remedy="select forecasts with one number of members",
        )
    total = np.stack(sums["ranks"].to_list()).sum(0)
    histogram: NDArray[np.float64] = total / total.mean()
    return histogram


def drifts(sums: pd.DataFrame) -> list[Drift]:
    """Global scores at WATCHED_LEADS that are worse than their own last 60 days allow.

    Silent until a score has a week of analyses behind it.
    """
    watched = sums[(sums["region"] == "global") & sums["lead_hours"].isin(WATCHED_LEADS)]
    crps = finished_scores(watched, [*BY_LEAD, "valid_time"])
    groups = crps.groupby(["variable", "level_hpa", "lead_hours"], dropna=False)
    return [found for _, group in groups for found in _drift(group)]


def _drift(group: pd.DataFrame) -> Iterator[Drift]:
    """The drift of one score, rows of one variable, level and lead."""
    series = group.sort_values("valid_time")
    newest = series["valid_time"].iloc[-1]
    series = series[series["valid_time"] > newest - _TRAILING]
    recent, past = series["crps"].iloc[-_RECENT:], series["crps"].iloc[:-_RECENT]
    if len(past) < _LEAST or len(recent) < _RECENT:
        return
    variable, level, lead = group[["variable", "level_hpa", "lead_hours"]].iloc[0]
    usual, deviation = float(past.mean()), float(past.std(ddof=1))
    if recent.median() > usual + _DEVIATIONS * deviation:
        level_hpa = None if pd.isna(level) else int(level)
        yield Drift(str(variable), level_hpa, int(lead), float(recent.median()), usual, deviation)
