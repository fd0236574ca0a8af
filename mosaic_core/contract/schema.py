"""Schemas of the datasets that cross a door, and the way between channels and variables.

A schema lists every fault at once; `validate` raises one DataError with all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS, LEVELS, VARIABLES, Variable
from mosaic_core.contract.variables import variable as variable_named

COORDINATE_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "time": {"standard_name": "time", "long_name": "valid time", "axis": "T"},
    "init_time": {
        "standard_name": "forecast_reference_time",
        "long_name": "initial time of the forecast",
    },
    "lead_time": {"standard_name": "forecast_period", "long_name": "time since the initial time"},
    "valid_time": {"standard_name": "time", "long_name": "time at which the forecast is valid"},
    "number": {"standard_name": "realization", "long_name": "ensemble member", "units": "1"},
    "level": {
        "standard_name": "air_pressure",
        "long_name": "pressure level",
        "units": "hPa",
        "positive": "down",
        "axis": "Z",
    },
    "latitude": {
        "standard_name": "latitude",
        "long_name": "latitude",
        "units": "degrees_north",
        "axis": "Y",
    },
    "longitude": {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    },
}


@dataclass(frozen=True)
class ArraySchema:
    """A variable: dims in order, dtype, and attributes that must be there with these values."""

    dims: tuple[str, ...]
    dtype: str = "float32"
    attributes: Mapping[str, str] = field(default_factory=dict)

    def faults(self, name: str, array: xr.DataArray) -> list[str]:
        """Every way in which `array` differs from this schema."""
        found = []
        if array.dims != self.dims:
            found.append(f"{name}: dims are {array.dims}, expected {self.dims}")
        if array.dtype != np.dtype(self.dtype):
            found.append(f"{name}: dtype is {array.dtype}, expected {self.dtype}")
        found += [
            f"{name}: attribute {key} is {array.attrs.get(key)!r}, expected {value!r}"
            for key, value in self.attributes.items()
            if array.attrs.get(key) != value
        ]
        return found


@dataclass(frozen=True)
class DatasetSchema:
    """Variables that must be there, coordinates with fixed values, coordinates that ascend.

    `closed` schemas allow no other data variable.
    """

    name: str
    variables: Mapping[str, ArraySchema]
    fixed: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    ascending: tuple[str, ...] = ()
    closed: bool = True

    def faults(self, dataset: xr.Dataset) -> list[str]:
        """Every fault of structure, coordinates, dtype and attributes; empty when valid."""
        return [
            *self._missing_and_unknown(dataset),
            *self._coordinate_faults(dataset),
            *(
                fault
                for name, schema in self.variables.items()
                if name in dataset
                for fault in schema.faults(name, dataset[name])
            ),
        ]

    def validate(self, dataset: xr.Dataset, *, where: str, remedy: str = "") -> xr.Dataset:
        """The dataset itself, or one DataError that lists every fault."""
        found = self.faults(dataset)
        if found:
            listed = "\n  - ".join(found)
            raise DataError(f"not a valid {self.name}:\n  - {listed}", where=where, remedy=remedy)
        return dataset

    def _missing_and_unknown(self, dataset: xr.Dataset) -> list[str]:
        missing = [f"{name}: missing" for name in self.variables if name not in dataset]
        unknown = set(dataset.data_vars) - set(self.variables) if self.closed else set()
        return missing + [f"{name}: not part of this dataset" for name in sorted(map(str, unknown))]

    def _coordinate_faults(self, dataset: xr.Dataset) -> list[str]:
        found = []
        for name in (*self.fixed, *self.ascending):
            if name not in dataset.coords:
                found.append(f"{name}: coordinate missing")
        for name, values in self.fixed.items():
            if name in dataset.coords and not _same_values(dataset[name].values, values):
                found.append(
                    f"{name}: values differ from the expected {values.size} "
                    f"({values.flat[0]} to {values.flat[-1]})"
                )
        for name in self.ascending:
            if name in dataset.coords and not _ascends(dataset[name].values):
                found.append(f"{name}: must ascend without repeats")
        return found


def _same_values(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return found.shape == expected.shape and bool(np.all(found == expected))


def _ascends(values: NDArray[Any]) -> bool:
    return values.ndim == 1 and bool(np.all(values[1:] > values[:-1]))


GRID_COORDINATES: Mapping[str, NDArray[Any]] = {
    "level": np.array(LEVELS, dtype=np.int64),
    "latitude": LATITUDE,
    "longitude": LONGITUDE,
}


def variable_attributes(variable: Variable) -> dict[str, str]:
    """CF attributes of one variable: standard_name, long_name, short_name, units."""
    return {
        "standard_name": variable.standard_name,
        "long_name": variable.long_name,
        "short_name": variable.short_name,
        "units": variable.units,
    }


def field_schemas(leading_dims: tuple[str, ...]) -> dict[str, ArraySchema]:
    """Schemas of the ten variables, (*leading_dims, [level,] latitude, longitude)."""
    return {
        variable.name: ArraySchema(
            dims=field_dims(variable, leading_dims),
            attributes={
                "units": variable.units,
                "standard_name": variable.standard_name,
            },
        )
        for variable in VARIABLES
    }


def field_dims(variable: Variable, leading_dims: tuple[str, ...]) -> tuple[str, ...]:
    """Dims of one variable after `leading_dims`."""
    levels = ("level",) if variable.on_levels else ()
    return (*leading_dims, *levels, "latitude", "longitude")


ANALYSIS = DatasetSchema(
    "analysis", field_schemas(("time",)), fixed=GRID_COORDINATES, ascending=("time",)
)
INITIAL_STATE = DatasetSchema(
    "initial state",
    field_schemas(("time",)),
    fixed=GRID_COORDINATES,
    ascending=("time",),
)
FORECAST = DatasetSchema(
    "forecast",
    field_schemas(("init_time", "number", "lead_time")),
    fixed=GRID_COORDINATES,
    ascending=("number", "lead_time"),
)


def channels_to_dataset(
    array: NDArray[np.float32],
    leading: Mapping[str, Any],
    *,
    channels: Sequence[str] | None = None,
) -> xr.Dataset:
    """Named variables from `array` (*leading, channel, latitude, longitude) on the 1.5 grid.

    `leading` maps each leading dim to its coordinate values. `channels` are the names along the
    channel axis, by default all 82 in the model's order; a variable on levels keeps the levels
    that are there, ascending.
    """
    names = [channel.name for channel in CHANNELS] if channels is None else list(channels)
    axis = len(leading)
    by_variable: dict[str, list[tuple[int | None, int]]] = {}
    for index, name in enumerate(names):
        entry = next(channel for channel in CHANNELS if channel.name == name)
        by_variable.setdefault(entry.variable.name, []).append((entry.level_hpa, index))
    parts = [
        _variable_array(array, axis, variable_named(name), places, tuple(leading))
        for name, places in by_variable.items()
    ]
    coords = {**leading, "latitude": LATITUDE, "longitude": LONGITUDE}
    dataset = xr.merge(parts, join="exact").assign_coords(coords)
    for coordinate in dataset.coords:
        dataset[coordinate].attrs.update(COORDINATE_ATTRIBUTES.get(str(coordinate), {}))
    return dataset


def _variable_array(
    array: NDArray[np.float32],
    axis: int,
    variable: Variable,
    places: list[tuple[int | None, int]],
    leading: tuple[str, ...],
) -> xr.Dataset:
    indices = [index for _, index in places]
    values = np.take(array, indices, axis=axis)
    coords = {}
    if variable.on_levels:
        coords["level"] = np.array([level for level, _ in places], dtype=np.int64)
    else:
        values = values[(slice(None),) * axis + (0,)]
    dims = field_dims(variable, leading)
    attributes = variable_attributes(variable)
    return xr.Dataset({variable.name: (dims, values, attributes)}, coords=coords)


def dataset_to_channels(dataset: xr.Dataset) -> NDArray[np.float32]:
    """The inverse for all 82 channels: float32 (*leading, channel, latitude, longitude)."""
    planes = [
        dataset[channel.variable.name].values
        if channel.level_hpa is None
        else dataset[channel.variable.name].sel(level=channel.level_hpa).values
        for channel in CHANNELS
    ]
    return np.stack(planes, axis=-3).astype(np.float32, copy=False)
