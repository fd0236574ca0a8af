"""Regular latitude-longitude grids as found in other people's files.

Everything is read from coordinates: which variable is the latitude, which way the rows run, where
the longitudes start. Nothing is assumed from the order of dimensions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.files import write_atomic

_NAMES = {
    "latitude": ("latitude", "lat", "nav_lat", "y"),
    "longitude": ("longitude", "lon", "nav_lon", "x"),
}
_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"),
    "longitude": ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"),
}
_SPACING_TOLERANCE = 1e-3  # of one interval: coordinates are often stored in single precision


@dataclass(frozen=True)
class RegularGrid:
    """The horizontal coordinates of a file, in degrees, in the file's own order.

    `longitude` runs on without a jump where the file's labels (`longitude_labels`) pass from 360
    to 0 or from 180 to -180.
    """

    latitude_dim: str
    longitude_dim: str
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    longitude_labels: NDArray[np.float64]

    @property
    def south_first(self) -> bool:
        """Whether the first row is the southernmost by its label."""
        return bool(self.latitude[0] < self.latitude[-1])

    @property
    def closes_circle(self) -> bool:
        """Whether the longitudes are one whole circle at equal steps, without a repeat."""
        step = float(np.diff(self.longitude).mean())
        return bool(abs(abs(step) * self.longitude.size - 360.0) < _SPACING_TOLERANCE * abs(step))

    def require_poles(self, where: str) -> None:
        """DataError unless the rows are equally spaced from pole to pole and close the circle."""
        ends = sorted((self.latitude[0], self.latitude[-1]))
        step = 180.0 / (self.latitude.size - 1)
        if max(abs(ends[0] + 90), abs(ends[1] - 90)) > _SPACING_TOLERANCE * step:
            raise DataError(
                f"latitudes run from {ends[0]:g} to {ends[1]:g}, without rows at the poles",
                where=where,
                remedy="give a regular latitude-longitude grid that includes both poles",
            )
        if not self.closes_circle:
            raise DataError(
                f"{self.longitude.size} longitudes from {self.longitude[0]:g} to "
                f"{self.longitude[-1]:g} are not one whole circle",
                where=where,
                remedy="give a global grid",
            )


def open_any(path: Path) -> xr.Dataset:
    """Open a NetCDF file or a Zarr store; InputError when it is neither."""
    if not path.exists():
        raise InputError("no such file or store", where=str(path), remedy="check the path")
    if path.is_dir():
        return _opened(path, "zarr")
    head = path.open("rb").read(4)
    if head[:3] == b"CDF" or head == b"\x89HDF":
        return _opened(path, "netcdf4")
    raise InputError(
        "neither NetCDF nor Zarr",
        where=str(path),
        remedy="give a NetCDF file or a Zarr directory; convert GRIB first (xarray with cfgrib)",
    )


def _opened(path: Path, engine: str) -> xr.Dataset:
    options: dict[str, Any] = {}
    if engine == "zarr":
        options["consolidated"] = _is_consolidated(path)
    try:
        return xr.open_dataset(path, engine=engine, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot be read as {engine}: {error}", where=str(path), remedy="check the file"
        ) from error


def _is_consolidated(path: Path) -> bool:
    """Whether a Zarr store says its whole structure in one place, in format 3 or 2."""
    metadata = path / "zarr.json"
    if metadata.exists():
        return b'"consolidated_metadata"' in metadata.read_bytes()
    return (path / ".zmetadata").exists()


def read_grid(field: xr.DataArray, where: str) -> RegularGrid:
    """The grid of a field; DataError when its coordinates are missing or not regular."""
    latitude_dim = _find(field, "latitude", where)
    longitude_dim = _find(field, "longitude", where)
    labels = _values(field, longitude_dim, where)
    grid = RegularGrid(
        latitude_dim, longitude_dim, _values(field, latitude_dim, where), _running(labels), labels
    )
    _require_regular(grid.latitude, latitude_dim, where)
    _require_regular(grid.longitude, longitude_dim, where)
    if np.abs(grid.latitude).max() > 90 + 1e-6:
        raise DataError(
            f"{latitude_dim} reaches {np.abs(grid.latitude).max():g}",
            where=where,
            remedy="latitudes must be degrees within -90..90",
        )
    return grid


def without_repeated_meridian(field: xr.DataArray, where: str) -> xr.DataArray:
    """The field without a last column that repeats the first (0 ... 360)."""
    grid = read_grid(field, where)
    span = abs(grid.longitude[-1] - grid.longitude[0])
    if abs(span - 360.0) > _SPACING_TOLERANCE * 360.0 / grid.longitude.size:
        return field
    return field.isel({grid.longitude_dim: slice(None, -1)})


def _find(field: xr.DataArray, kind: str, where: str) -> str:
    for dim in map(str, field.dims):
        attributes = field[dim].attrs if dim in field.coords else {}
        if attributes.get("standard_name") == kind:
            return dim
        if str(attributes.get("units", "")).lower() in _UNITS[kind]:
            return dim
    for dim in map(str, field.dims):
        if dim.lower() in _NAMES[kind]:
            return dim
    raise DataError(
        f"no {kind} among the dimensions {tuple(map(str, field.dims))}",
        where=where,
        remedy=f"give the {kind} a coordinate with standard_name or units as in the CF conventions",
    )


def _values(field: xr.DataArray, dim: str, where: str) -> NDArray[np.float64]:
    if dim not in field.coords:
        raise DataError(
            f"dimension {dim} has no coordinate values",
            where=where,
            remedy="the order of the rows is read from the coordinates: write them to the file",
        )
    return np.asarray(field[dim].values, dtype=np.float64)


def _running(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longitudes without a jump of a whole circle."""
    steps = np.diff(longitude)
    turns = np.round(steps / 360.0)
    return longitude - 360.0 * np.concatenate([[0.0], np.cumsum(turns)])


def _require_regular(values: NDArray[np.float64], name: str, where: str) -> None:
    steps = np.diff(values)
    if values.ndim != 1 or values.size < 3 or not np.isfinite(values).all():
        raise DataError(f"{name} is not a list of coordinates", where=where)
    if np.ptp(steps) > _SPACING_TOLERANCE * abs(steps.mean()) or steps.mean() == 0:
        raise DataError(
            f"{name} is not equally spaced",
            where=where,
            remedy="interpolate to a regular latitude-longitude grid (Gaussian grids are not one)",
        )


def selected(dataset: xr.Dataset, requests: Sequence[str], where: str) -> xr.Dataset:
    """The dataset at one value of each dimension asked for as 'dim=value'.

    Numbers match the coordinate, leads are hours, times are written like 2026-01-01T06.
    InputError names the choices when nothing matches.
    """
    for request in requests:
        dim, _, text = request.partition("=")
        if dim not in dataset.dims or not text:
            raise InputError(
                f"cannot select {request!r}",
                where=where,
                remedy=f"write DIM=VALUE with one of {', '.join(map(str, dataset.dims))}",
            )
        dataset = dataset.isel({dim: _position(dataset, dim, text, where)})
    return dataset


def _position(dataset: xr.Dataset, dim: str, text: str, where: str) -> int:
    values: NDArray[Any] = np.arange(dataset.sizes[dim])
    if dim in dataset.coords:
        values = dataset[dim].values
    if np.issubdtype(values.dtype, np.timedelta64):
        values = values / np.timedelta64(1, "h")
    if values.dtype.kind in "OTU":
        values = np.array([str(value) for value in values.tolist()])
    try:
        found = np.flatnonzero(values == np.array(text).astype(values.dtype))
    except ValueError:
        found = np.array([], dtype=int)
    if not found.size:
        raise InputError(
            f"{dim} has no value {text}",
            where=where,
            remedy=f"its values run from {values[0]} to {values[-1]}",
        )
    return int(found[0])


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write NetCDF-4, whole or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "dataset.nc"
        dataset.to_netcdf(aside, engine="netcdf4", format="NETCDF4")
        write_atomic(path, aside.read_bytes())
