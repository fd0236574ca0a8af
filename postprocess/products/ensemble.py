"""Statistics over the members of a streaming forecast, one lead in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ArraySchema, DatasetSchema, variable_attributes
from mosaic_core.contract.variables import Variable, channel
from postprocess.layout import QUANTIZATION, quantization_array, quantization_attributes
from postprocess.products.derived import Plane, planes_of
from postprocess.products.growing_store import GrowingStore, MapArray
from postprocess.products.reduction import DEVIATION_BITS, MemberReduction
from postprocess.products.requests import ProductRequest
from postprocess.products.stream import (
    SameRun,
    coordinate,
    forecast_coordinates,
    without_fields,
)
from postprocess.rounding import keep_bits

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


@dataclass
class _Room:
    """Statistics (4 + quantiles, level, latitude, longitude) of a variable, and their packing."""

    values: NDArray[np.float32]
    packed: Future[None] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.packed.set_result(None)


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

    The store at `path` holds `<variable>_<statistic>` (lead_time, [quantile,] [level,] latitude,
    longitude) float32 and number_of_members (lead_time). Wind speeds are formed in each member
    first. Every lead goes to the disk as it comes, packed by a thread while the next variable is
    counted; the store is there after `finish`. Non-finite members make the point NaN. `rounding`
    'default' rounds each statistic to the bits that its channel is stored with, deviations to
    DEVIATION_BITS.
    """

    name = "ensemble"

    def __init__(
        self,
        path: Path,
        statistics: Sequence[str] = STATISTICS,
        quantiles: Sequence[float] = ProductRequest.quantiles,
        *,
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
        self._store = GrowingStore(path)
        self._run = SameRun()
        self._steps: list[ForecastStep] = []
        self._reduction = MemberReduction(1, self._quantiles)
        self._rooms: dict[int, list[_Room]] = {}
        self._packer = ThreadPoolExecutor(1, thread_name_prefix="ensemble")

    def update(self, step: ForecastStep) -> None:
        """Add one lead; StoreError when it does not follow the last."""
        self._run.check(step)
        if self._reduction.members != len(step.numbers):
            self._reduction = MemberReduction(len(step.numbers), self._quantiles)
        for planes in grouped_by_variable(step.channels):
            self._add_variable(step, planes)
        self._steps.append(without_fields(step))

    def finish(self, attributes: Mapping[str, Any], template: str | None = None) -> Path:
        """Complete the store with the run's `attributes`; StoreError when there was no step."""
        if not self._steps:
            raise StoreError("no step was given", where=self.name)
        for room in [room for rooms in self._rooms.values() for room in rooms]:
            room.packed.result()
        self._packer.shutdown()
        maps: dict[str, MapArray] = {}
        for planes in grouped_by_variable(self._steps[0].channels):
            maps |= self._maps(planes)
        self._store.finish(maps, self._rest(), attributes, template=template)
        return self._store.path

    def result(self) -> xr.Dataset:
        """The whole store, opened: all leads; StoreError when there was none."""
        path = self.finish({})
        dataset = xr.open_zarr(path, chunks=None, consolidated=True, decode_timedelta=True)
        schema = ensemble_schema(self._steps[0].channels, self._statistics)
        return schema.validate(dataset, where=self.name)

    def _add_variable(self, step: ForecastStep, planes: list[Plane]) -> None:
        room = self._room(len(planes))
        for level, plane in enumerate(planes):
            sources = plane.sources_in(step.fields, step.channels)
            self._reduction(sources, self._bits(plane), room.values[:, level])
        room.packed = self._packer.submit(self._pack, planes[0].variable, room.values)

    def _pack(self, variable: Variable, found: NDArray[np.float32]) -> None:
        """Store every statistic of a variable at one lead."""
        chunks = found if variable.on_levels else found[:, 0]
        for index, statistic in enumerate(STATISTICS[:-1]):
            if statistic in self._statistics:
                self._store.append(f"{variable.name}_{statistic}", chunks[index])
        if "quantile" in self._statistics:
            for index in range(len(self._quantiles)):
                self._store.append(f"{variable.name}_quantile", chunks[4 + index], index)

    def _room(self, levels: int) -> _Room:
        """Memory for the statistics of a variable: that of two which was packed longer ago."""
        shape = (4 + len(self._quantiles), levels, LATITUDE.size, LONGITUDE.size)
        if levels not in self._rooms:
            self._rooms[levels] = [_Room(np.empty(shape, np.float32)) for _ in range(2)]
        rooms = self._rooms[levels]
        rooms.reverse()
        rooms[0].packed.result()
        return rooms[0]

    def _bits(self, plane: Plane) -> int | None:
        return keep_bits(channel(plane.sources[0]), self._rounding)

    def _maps(self, planes: list[Plane]) -> dict[str, MapArray]:
        variable = planes[0].variable
        lengths = {
            "quantile": len(self._quantiles),
            "level": len(planes),
            "latitude": LATITUDE.size,
            "longitude": LONGITUDE.size,
        }
        bits = [self._bits(plane) for plane in planes]
        of_deviation = [None if kept is None else DEVIATION_BITS for kept in bits]
        return {
            f"{variable.name}_{statistic}": MapArray(
                {dim: lengths[dim] for dim in _dims(variable, statistic)},
                {
                    **_attributes(variable, statistic),
                    **quantization_attributes(of_deviation if statistic == "std" else bits),
                },
            )
            for statistic in self._statistics
        }

    def _rest(self) -> xr.Dataset:
        """Coordinates and number_of_members."""
        first = self._steps[0]
        counts = np.array([len(step.numbers) for step in self._steps], dtype=np.int32)
        attributes = {"long_name": "number of members in the statistics", "units": "1"}
        coords = forecast_coordinates(first.init_time, [step.lead_time for step in self._steps])
        levels = sorted({p.level_hpa for p in planes_of(first.channels) if p.level_hpa is not None})
        if levels:
            coords["level"] = coordinate("level", np.array(levels, dtype=np.int64))
        coords["latitude"] = coordinate("latitude", LATITUDE)
        coords["longitude"] = coordinate("longitude", LONGITUDE)
        if "quantile" in self._statistics:
            described = {"long_name": "quantile of the ensemble", "units": "1"}
            coords["quantile"] = xr.Variable("quantile", np.array(self._quantiles), described)
        if self._rounding != "none":
            info = quantization_array()["attributes"]
            coords[QUANTIZATION] = xr.Variable((), np.int32(0), info)
        attrs = {"Conventions": "CF-1.12", "title": "Ensemble statistics"}
        number = xr.Variable("lead_time", counts, attributes)
        return xr.Dataset({"number_of_members": number}, coords=coords, attrs=attrs)


def grouped_by_variable(channels: Sequence[str]) -> list[list[Plane]]:
    """The planes of these channels, one list a variable, levels ascending.

    StoreError when the variables on levels are not all on the same levels.
    """
    groups: dict[str, list[Plane]] = {}
    for plane in planes_of(channels):
        groups.setdefault(plane.variable.name, []).append(plane)
    ordered = [sorted(group, key=lambda plane: plane.level_hpa or 0) for group in groups.values()]
    found = {tuple(p.level_hpa for p in group) for group in ordered if group[0].level_hpa}
    if len(found) > 1:
        raise StoreError(
            f"variables are on different levels: {sorted(map(str, found))}",
            where="ensemble statistics",
            remedy="give every variable on the same levels",
        )
    return ordered


def _attributes(variable: Variable, statistic: str) -> dict[str, str]:
    attributes = variable_attributes(variable)
    attributes["long_name"] = f"{variable.long_name}, {_LONG_NAMES[statistic]}"
    if statistic in _CELL_METHODS:
        attributes["cell_methods"] = _CELL_METHODS[statistic]
    return attributes
