"""One forecast against one analysis: the rows that are kept, and never need to be made again."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.variables import channel
from postprocess.products.derived import Plane, planes_of
from postprocess.scores.fields import (
    BASELINE,
    STATISTICS,
    baseline_scores,
    ensemble_scores,
    ranks,
)
from postprocess.scores.regions import REGIONS, region_weights

HEADLINE = (
    "geopotential_500",
    "temperature_850",
    "specific_humidity_700",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
    "u_component_of_wind_200",
    "v_component_of_wind_200",
    "2m_temperature",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "mean_sea_level_pressure",
)
"""Channels that are scored; the wind speeds of their pairs are added."""

PLANES = planes_of(HEADLINE)
KEYS = ("init_time", "valid_time", "lead_hours", "variable", "level_hpa", "units", "region",
        "run_id", "members")  # fmt: skip
SUMS = ("weight", *STATISTICS, *BASELINE)
DIGESTS = ("truth_sha256", "initial_sha256")
"""SHA-256 of the archived analyses that a row was made with; missing when not known."""
COLUMNS = (*KEYS, *DIGESTS, *SUMS, "ranks")


def score_lead(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    initial: xr.Dataset | None,
    *,
    cycle: Cycle,
    valid: Cycle,
    run_id: str,
    digests: Mapping[str, str | None],
) -> pd.DataFrame:
    """Sums over each region of every headline field, COLUMNS, one row a field and region.

    `forecast` has (number, [level,] latitude, longitude), one lead, healthy members only; `truth`
    and `initial`, the analysis that `cycle` starts from, have ([level,] latitude, longitude).
    Without `initial` the sums of persistence are NaN. `ranks` is the list of the M + 1 sums of
    area, by the rank of the truth among the members. `digests` are the values of DIGESTS.
    """
    weights = region_weights()
    rows = [_rows(plane, forecast, truth, initial, weights, f"{cycle} {valid}") for plane in PLANES]
    table = pd.concat(rows).assign(
        init_time=cycle.init_time,
        valid_time=valid.init_time,
        lead_hours=lead_hours(cycle, valid),
        run_id=run_id,
        **digests,
    )
    return typed(table)


def _rows(
    plane: Plane,
    forecast: xr.Dataset,
    truth: xr.Dataset,
    initial: xr.Dataset | None,
    weights: NDArray[np.float64],
    name: str,
) -> pd.DataFrame:
    """The sums of one field, one row a region; `name` of the pair decides ties between ranks."""
    members, target = _values(forecast, plane, ("number",)), _values(truth, plane, ())
    fields = ensemble_scores(members, target)
    if initial is not None:
        fields |= baseline_scores(_values(initial, plane, ()), target)
    seed = zlib.crc32(f"{name} {plane.variable.name} {plane.level_hpa}".encode())
    histogram = _histogram(ranks(members, target, seed), weights, members.shape[0])
    sums = {each: weights @ fields[each] if each in fields else np.nan
            for each in (*STATISTICS, *BASELINE)}  # fmt: skip
    table = pd.DataFrame(
        {
            "variable": plane.variable.name,
            "level_hpa": plane.level_hpa,
            "units": plane.variable.units,
            "region": [region.name for region in REGIONS],
            "members": members.shape[0],
            "weight": weights.sum(1),
            **sums,
            "ranks": histogram.tolist(),
        }
    )
    return table.astype({"level_hpa": "Int32"})


def lead_hours(cycle: Cycle, valid: Cycle) -> int:
    """Hours from the initial time of `cycle` to `valid`, negative when that lies before."""
    return int((valid.init_time - cycle.init_time) / np.timedelta64(1, "h"))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns in order and one dtype each; rows in order of KEYS."""
    kinds = {"lead_hours": "int32", "level_hpa": "Int32", "members": "int32"}
    kinds |= dict.fromkeys(DIGESTS, "string") | dict.fromkeys(SUMS, "float64")
    whole = frame[list(COLUMNS)].astype(kinds)
    return whole.sort_values(["init_time", "variable", "level_hpa", "region"], ignore_index=True)


def empty() -> pd.DataFrame:
    """The table without rows."""
    columns = {name: pd.Series(dtype="object") for name in COLUMNS}
    times = dict.fromkeys(("init_time", "valid_time"), "datetime64[ns]")
    return typed(pd.DataFrame(columns).astype(times))


def _values(dataset: xr.Dataset, plane: Plane, leading: Sequence[str]) -> NDArray[np.float32]:
    """(*leading, point) of a field or a wind speed, latitude by latitude."""
    parts = [_field(dataset, name, leading) for name in plane.sources]
    return parts[0] if len(parts) == 1 else np.hypot(*parts)


def _field(dataset: xr.Dataset, name: str, leading: Sequence[str]) -> NDArray[np.float32]:
    entry = channel(name)
    field = dataset[entry.variable.name]
    if entry.level_hpa is not None:
        field = field.sel(level=entry.level_hpa)
    values = field.transpose(*leading, "latitude", "longitude").values
    if not np.isfinite(values).all():
        raise InputError(
            f"{int((~np.isfinite(values)).sum())} values of {name} are not finite",
            where="scores",
            remedy="leave unhealthy members out; `mosaic-ops verify-store` finds damage",
        )
    return values.reshape(*values.shape[:-2], -1)


def _histogram(
    rank: NDArray[np.int64], weights: NDArray[np.float64], members: int
) -> NDArray[np.float64]:
    """(region, rank): area of the points with each rank."""
    return np.stack([np.bincount(rank, own, minlength=members + 1) for own in weights])
