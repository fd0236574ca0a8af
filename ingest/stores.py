"""Analyses from Zarr stores laid out like WeatherBench 2: local, or anywhere fsspec reaches.

The names are the model's own. Everything else is read from the store and never assumed: Zarr v2 or
v3, the order of the dims, the direction of latitude, the origin of longitude, the order of levels,
the epoch of time. Other global grids are regridded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ingest.regrid import ConservativeRegridder
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, MosaicOpsError, SourceError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ANALYSIS, COORDINATE_ATTRIBUTES, variable_attributes
from mosaic_core.contract.variables import LEVELS, VARIABLES, Variable

_BUCKET = "gs://weatherbench2/datasets"
_GRID = "6h-240x121_equiangular_with_poles_conservative.zarr"
_ALIASES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon"),
            "level": ("level", "pressure_level"), "time": ("time", "valid_time")}  # fmt: skip


@dataclass(frozen=True)
class StoreSource:
    """A store of analyses every six hours from `first` to `last` (None: what its time axis says).

    `options` go to fsspec; a gs:// address is read anonymously unless they say otherwise.
    """

    name: str
    address: str
    first: Cycle | None = None
    last: Cycle | None = None
    options: Mapping[str, Any] | None = None

    def holds(self, cycle: Cycle) -> bool:
        """Whether the cycle lies between the first and the last."""
        return (self.first is None or cycle >= self.first) and (
            self.last is None or cycle <= self.last
        )


WEATHERBENCH = (
    StoreSource("wb2-hres", f"{_BUCKET}/hres_t0/2016-2022-{_GRID}",
                Cycle.parse("2016-01-01T00Z"), Cycle.parse("2023-01-10T18Z")),
    StoreSource("wb2-era5", f"{_BUCKET}/era5/1959-2023_01_10-{_GRID}",
                Cycle.parse("1959-01-01T00Z"), Cycle.parse("2023-01-10T18Z")),
)  # fmt: skip


def read_store(source: StoreSource, cycle: Cycle) -> xr.Dataset:
    """The analysis of `cycle` from the store: ANALYSIS schema, one time, in memory.

    Raises SourceError when the store cannot be opened or read or lacks the time (naming the times
    it has), DataError when a variable or level is missing or any value is NaN.
    """
    with _faults_named("read", f"{source.address} {cycle}"), _opened(source) as store:
        return _analysis(store, cycle.init_time, source)


def store_times(source: StoreSource) -> NDArray[np.datetime64]:
    """The times of the store, ascending; SourceError when it cannot be opened or read."""
    with _faults_named("read", f"{source.address} time"), _opened(source) as store:
        return np.sort(store["time"].values.astype("datetime64[ns]"))


@contextmanager
def _opened(source: StoreSource) -> Iterator[xr.Dataset]:
    options = source.options
    if options is None and source.address.startswith("gs://"):
        options = {"token": "anon"}
    with _faults_named("open", source.address):
        store = xr.open_zarr(source.address, chunks=None, storage_options=options or None)
    with store:
        yield _renamed(store, source)


@contextmanager
def _faults_named(action: str, where: str) -> Iterator[None]:
    """Whatever a backend raises becomes a SourceError, so that another source is tried."""
    try:
        yield
    except MosaicOpsError:
        raise
    except Exception as error:  # every backend has exceptions of its own
        raise SourceError(
            f"cannot {action} the store ({type(error).__name__}: {str(error)[:200]})",
            where=where,
            remedy="check the address and the credentials, or take another source",
        ) from error


def _renamed(store: xr.Dataset, source: StoreSource) -> xr.Dataset:
    names = {
        alias: name
        for name, aliases in _ALIASES.items()
        for alias in aliases
        if alias in store.variables and alias != name
    }
    found = store.rename(names)
    missing = [name for name in _ALIASES if name not in found.variables]
    missing += [variable.name for variable in VARIABLES if variable.name not in found]
    if missing:
        raise DataError(
            f"the store lacks {', '.join(missing)}",
            where=source.address,
            remedy="give a store with the names of WeatherBench 2",
        )
    return found


def _analysis(store: xr.Dataset, time: np.datetime64, source: StoreSource) -> xr.Dataset:
    times = store["time"].values.astype("datetime64[ns]")
    places = np.flatnonzero(times == time)
    if places.size == 0:
        span = f", {times.min()} to {times.max()}" if times.size else ""
        raise SourceError(
            f"no analysis of {time} in this store; it has {times.size} times{span}",
            where=source.address,
            remedy="choose another source; `mosaic-ops sources plan` says which has it",
        )
    one = store.isel(time=int(places[0]))
    data = {v.name: _field(one, v, source) for v in VARIABLES}
    coords = {
        "time": [time],
        "level": np.array(LEVELS),
        "latitude": LATITUDE,
        "longitude": LONGITUDE,
    }
    dataset = xr.Dataset(data, coords=coords)
    for name in dataset.coords:
        dataset[name].attrs.update(COORDINATE_ATTRIBUTES[str(name)])
    attributes = {"source": source.name, "data_url": source.address}
    return ANALYSIS.validate(dataset.assign_attrs(attributes), where=source.address)


def _field(
    one: xr.Dataset, variable: Variable, source: StoreSource
) -> tuple[tuple[str, ...], NDArray[np.float32], dict[str, str]]:
    """One variable in the contract's order of dims, on its grid, without a NaN."""
    dims = (*(("level",) if variable.on_levels else ()), "latitude", "longitude")
    where = f"{source.address} {variable.name}"
    array = one[variable.name]
    if set(array.dims) != set(dims):
        raise DataError(f"dims are {array.dims}, expected {dims}", where=where, remedy=_OTHER)
    if variable.on_levels:
        absent = set(LEVELS) - {int(level) for level in one["level"].values}
        if absent:
            raise DataError(f"levels {sorted(absent)} are missing", where=where, remedy=_OTHER)
        array = array.sel(level=list(LEVELS))
    values = array.transpose(*dims).values.astype(np.float32, copy=False)
    if np.isnan(values.min()):
        raise DataError(f"{int(np.isnan(values).sum())} values are NaN", where=where, remedy=_OTHER)
    placed = _on_grid(values, one["latitude"].values, one["longitude"].values)
    return ("time", *dims), placed[np.newaxis], variable_attributes(variable)


_OTHER = "take this cycle from another source"


def _on_grid(
    values: NDArray[np.float32], latitude: NDArray[Any], longitude: NDArray[Any]
) -> NDArray[np.float32]:
    """Values already on the model's grid are turned into place, all others regridded."""
    if latitude[0] > latitude[-1]:
        values, latitude = values[..., ::-1, :], latitude[::-1]
    turn = int(np.argmin(longitude % 360.0))
    turned = np.roll(longitude % 360.0, -turn)
    same = latitude.size == LATITUDE.size and longitude.size == LONGITUDE.size
    if same and np.allclose(latitude, LATITUDE) and np.allclose(turned, LONGITUDE):
        return np.ascontiguousarray(np.roll(values, -turn, axis=-1))
    regridded = ConservativeRegridder(latitude, longitude)(values)
    return regridded.astype(np.float32, copy=False)
