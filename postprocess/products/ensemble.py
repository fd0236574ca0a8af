"""Statistics over the members of a streaming forecast, one lead in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ArraySchema, DatasetSchema, variable_attributes
from mosaic_core.contract.variables import Variable, channel
from postprocess.products.derived import Plane, planes_of
from postprocess.products.leads import LeadSeries
from postprocess.products.stream import SameRun, coordinate, forecast_coordinates
from postprocess.rounding import bit_round, keep_bits

DEFAULT_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
STATISTICS = ("mean", "std", "min", "max", "quantile")

_CELL_METHODS = {
    "mean": "realization: mean",
    "std": "realization: standard_deviation",
    "min": "realization: minimum",
    "max": "realization: maximum",
}
_LONG_NAMES = {
    "mean": "ensemble mean",
    "std": "ensemble standard deviation (ddof 1)",
    "min": "ensemble minimum",
    "max": "ensemble maximum",
    "quantile": "ensemble quantile",
}


def mean_and_deviation(
    members: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation (ddof 1) over axis 0, summed in double precision.

    One member has no deviation: NaN.
    """
    count = members.shape[0]
    mean = members.mean(0, dtype=np.float64)
    if count < 2:
        return mean.astype(np.float32), np.full(mean.shape, np.nan, np.float32)
    squares = np.zeros_like(mean)
    for member in members:
        squares += (member - mean) ** 2
    return mean.astype(np.float32), np.sqrt(squares / (count - 1)).astype(np.float32)


def sorted_quantiles(
    ordered: NDArray[np.float32], quantiles: Sequence[float]
) -> NDArray[np.float32]:
    """Quantiles (quantile, ...) by linear interpolation of `ordered` (sorted along axis 0)."""
    positions = np.asarray(quantiles, dtype=np.float64) * (ordered.shape[0] - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, ordered.shape[0] - 1)
    share = (positions - below).astype(np.float32).reshape(-1, *[1] * (ordered.ndim - 1))
    return np.asarray(ordered[below] + share * (ordered[above] - ordered[below]))


def ensemble_schema(channels: Sequence[str], statistics: Sequence[str]) -> DatasetSchema:
    """Schema of the statistics of a forecast with these channels."""
    variables = {"number_of_members": ArraySchema(("lead_time",), dtype="int32")}
    for variable in dict.fromkeys(plane.variable for plane in planes_of(channels)):
        for statistic in statistics:
            variables[f"{variable.name}_{statistic}"] = ArraySchema(
                ("lead_time", *_dims(variable, statistic)), attributes={"units": variable.units}
            )
    return DatasetSchema(
        "ensemble statistics",
        variables,
        fixed={"latitude": LATITUDE, "longitude": LONGITUDE},
        ascending=("lead_time",),
    )


def _dims(variable: Variable, statistic: str) -> tuple[str, ...]:
    """Dimensions after lead_time."""
    middle = ("quantile",) if statistic == "quantile" else ()
    levels = ("level",) if variable.on_levels else ()
    return (*middle, *levels, "latitude", "longitude")


class EnsembleStatistics:
    """Mean, standard deviation, minimum, maximum and quantiles of every channel and wind speed.

    `result()` holds `<variable>_<statistic>` (lead_time, [quantile,] [level,] latitude, longitude)
    float32 and number_of_members (lead_time). Wind speeds are formed in each member first. With
    `path` every lead goes to a Zarr store there and the result is opened from it; without, the
    result is kept in memory (for short forecasts). Non-finite members make the point NaN.
    `rounding` 'default' rounds each statistic to the bits that its channel is stored with.
    """

    name = "ensemble"

    def __init__(
        self,
        statistics: Sequence[str] = STATISTICS,
        quantiles: Sequence[float] = DEFAULT_QUANTILES,
        *,
        path: Path | None = None,
        rounding: str = "none",
    ) -> None:
        unknown = sorted(set(statistics) - set(STATISTICS))
        if unknown or not all(0 <= quantile <= 1 for quantile in quantiles):
            raise InputError(
                f"unknown statistics {unknown} or quantiles outside 0..1: {list(quantiles)}",
                where="ensemble statistics",
                remedy=f"choose from {', '.join(STATISTICS)}; quantiles such as 0.9",
            )
        self._statistics = tuple(statistics)
        self._quantiles = tuple(quantiles)
        self._rounding = rounding
        self._series = LeadSeries(path)
        self._run = SameRun()
        self._channels: tuple[str, ...] = ()

    def update(self, step: ForecastStep) -> None:
        """Add one lead; StoreError when it does not follow the last."""
        self._run.check(step)
        self._channels = step.channels
        arrays: dict[str, xr.Variable] = {}
        for planes in grouped_by_variable(step):
            arrays |= self._variable(step, planes)
        self._series.append(self._with_coordinates(step, arrays))

    def result(self) -> xr.Dataset:
        """All leads so far; StoreError when there was none."""
        schema = ensemble_schema(self._channels, self._statistics)
        return schema.validate(self._series.result(self.name), where=self.name)

    def _variable(self, step: ForecastStep, planes: list[Plane]) -> dict[str, xr.Variable]:
        parts = [self._rounded(step, plane) for plane in planes]
        variable = planes[0].variable
        return {
            f"{variable.name}_{statistic}": _stacked(
                variable, statistic, [part[statistic] for part in parts]
            )
            for statistic in self._statistics
        }

    def _rounded(self, step: ForecastStep, plane: Plane) -> dict[str, NDArray[np.float32]]:
        found = self._of_plane(plane.take(step.fields, step.channels))
        bits = keep_bits(channel(plane.sources[0]), self._rounding)
        if bits is None:
            return found
        found = {name: np.ascontiguousarray(values) for name, values in found.items()}
        for values in found.values():
            bit_round(values, bits)
        return found

    def _of_plane(self, members: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Every statistic of one plane, each (..., latitude, longitude)."""
        found: dict[str, NDArray[np.float32]] = {}
        found["mean"], found["std"] = mean_and_deviation(members)
        if {"min", "max", "quantile"} & set(self._statistics):
            ordered = np.sort(members, axis=0)
            found["min"], found["max"] = ordered[0], ordered[-1]
            found["quantile"] = sorted_quantiles(ordered, self._quantiles)
        broken = ~np.isfinite(found["mean"])
        if broken.any():
            found = {name: np.where(broken, np.nan, values) for name, values in found.items()}
        return {name: values.swapaxes(-1, -2) for name, values in found.items()}

    def _with_coordinates(self, step: ForecastStep, arrays: dict[str, xr.Variable]) -> xr.Dataset:
        count = np.array([len(step.numbers)], dtype=np.int32)
        attributes = {"long_name": "number of members in the statistics", "units": "1"}
        arrays["number_of_members"] = xr.Variable("lead_time", count, attributes)
        coords = forecast_coordinates(step.init_time, [step.lead_time])
        levels = sorted({p.level_hpa for p in planes_of(step.channels) if p.level_hpa is not None})
        if levels:
            coords["level"] = coordinate("level", np.array(levels, dtype=np.int64))
        coords |= {
            "latitude": coordinate("latitude", LATITUDE),
            "longitude": coordinate("longitude", LONGITUDE),
        }
        if "quantile" in self._statistics:
            described = {"long_name": "quantile of the ensemble", "units": "1"}
            coords["quantile"] = xr.Variable("quantile", np.array(self._quantiles), described)
        attrs = {"Conventions": "CF-1.11", "title": "Ensemble statistics"}
        return xr.Dataset(arrays, coords=coords, attrs=attrs)


def grouped_by_variable(step: ForecastStep) -> list[list[Plane]]:
    """The planes of a step, one list a variable, levels ascending.

    StoreError when the variables on levels are not all on the same levels.
    """
    groups: dict[str, list[Plane]] = {}
    for plane in planes_of(step.channels):
        groups.setdefault(plane.variable.name, []).append(plane)
    ordered = [sorted(group, key=lambda plane: plane.level_hpa or 0) for group in groups.values()]
    found = {tuple(p.level_hpa for p in group) for group in ordered if group[0].level_hpa}
    if len(found) > 1:
        raise StoreError(
            f"variables are on different levels: {sorted(map(str, found))}",
            where=f"forecast step {step.step}",
            remedy="give every variable on the same levels",
        )
    return ordered


def _stacked(variable: Variable, statistic: str, planes: list[NDArray[np.float32]]) -> xr.Variable:
    dims = ("lead_time", *_dims(variable, statistic))
    values = np.stack(planes, axis=dims.index("level") - 1) if variable.on_levels else planes[0]
    return xr.Variable(dims, values[np.newaxis], _attributes(variable, statistic))


def _attributes(variable: Variable, statistic: str) -> dict[str, str]:
    attributes = variable_attributes(variable)
    attributes["long_name"] = f"{variable.long_name}, {_LONG_NAMES[statistic]}"
    if statistic in _CELL_METHODS:
        attributes["cell_methods"] = _CELL_METHODS[statistic]
    return attributes
