"""Nodes in any CF file, named as on the command line of DetectNodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.cyclones.nodes import Contour, Mesh, find_nodes
from postprocess.products.grids import RegularGrid, read_grid, without_repeated_meridian

COLUMNS = ("time_index", "longitude", "latitude", "value")

_FIELD = re.compile(r"^(?P<name>[A-Za-z_0-9.\-]+?)(?:\((?P<level>[0-9.]+)(?:hPa)?\))?$")
_DIFFERENCE = re.compile(r"^_DIFF\((?P<a>.+),(?P<b>.+)\)$")


@dataclass(frozen=True)
class ContourRequest:
    """A closed contour by name: `field` is NAME, NAME(LEVEL) or _DIFF(A,B)."""

    field: str
    delta: float
    distance: float
    search: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ContourRequest:
        """Read 'msl,200,5.5,0': field, delta, distance in degrees, search distance (default 0)."""
        match = re.match(
            r"^(_DIFF\(.*\)|[^,]+),([^,]+),([^,]+)(?:,([^,]+))?$", text.replace(" ", "")
        )
        try:
            if match is None:
                raise ValueError("three or four parts are needed")
            numbers = [float(part) for part in match.groups()[1:] if part is not None]
        except ValueError as error:
            raise InputError(
                f"cannot read the closed contour {text!r}: {error}",
                remedy="write FIELD,DELTA,DISTANCE,SEARCH like msl,200,5.5,0",
            ) from None
        return cls(match.group(1), *numbers)


def nodes_table(
    dataset: xr.Dataset,
    contours: Sequence[ContourRequest],
    *,
    search: str | None = None,
    maxima: bool = False,
    merge_distance: float = 0.0,
    max_abs_latitude: float = 90.0,
    regional: bool = False,
    where: str = "dataset",
) -> pd.DataFrame:
    """Nodes of a file: columns time_index, longitude, latitude, value, in the file's row order.

    `search` is the field whose extrema are sought, by default that of the first contour. Fields
    need a latitude and a longitude; at most one more dimension (time) may remain. A `regional`
    mesh is not joined at its ends. No node gives an empty table with the same columns.
    """
    if search is None and not contours:
        raise InputError("no field to search", remedy="give --search or a --closed-contour")
    name = contours[0].field if search is None else search
    field = _read(dataset, name, where)
    grid = read_grid(field, where)
    mesh = _mesh(grid, regional=regional, where=where)
    dims = _dims(field, grid, where)
    values = _values(field, dims)
    requested = [
        Contour(_like(dataset, request.field, field, dims, where), request.delta,
                request.distance, request.search)
        for request in contours
    ]  # fmt: skip
    nodes = find_nodes(
        values, mesh, requested, maxima=maxima, merge_distance=merge_distance,
        max_abs_latitude=max_abs_latitude,
    )  # fmt: skip
    rows = (
        nodes.index,
        grid.longitude_labels[nodes.column],
        grid.latitude[nodes.row],
        nodes.of(values),
    )
    return pd.DataFrame(dict(zip(COLUMNS, rows, strict=True)))


def _mesh(grid: RegularGrid, *, regional: bool, where: str) -> Mesh:
    if not regional and not grid.closes_circle:
        raise DataError(
            f"{grid.longitude.size} longitudes from {grid.longitude[0]:g} to "
            f"{grid.longitude[-1]:g} are not one whole circle",
            where=where,
            remedy="add --regional for a limited area",
        )
    return Mesh(tuple(grid.latitude.tolist()), tuple(grid.longitude.tolist()), not regional)


def _read(dataset: xr.Dataset, text: str, where: str) -> xr.DataArray:
    difference = _DIFFERENCE.match(text)
    if difference:
        first, second = (_read(dataset, difference[key], where) for key in ("a", "b"))
        return first.astype(np.float32) - second.astype(np.float32)
    match = _FIELD.match(text)
    if match is None or match["name"] not in dataset.data_vars:
        raise InputError(
            f"no variable {text!r}",
            where=where,
            remedy=f"the file holds {', '.join(map(str, dataset.data_vars))}; "
            "write NAME, NAME(500hPa) or _DIFF(NAME(300hPa),NAME(500hPa))",
        )
    field = dataset[match["name"]]
    if match["level"] is not None:
        field = _at_level(field, float(match["level"]), where)
    return without_repeated_meridian(field, where)


def _at_level(field: xr.DataArray, level: float, where: str) -> xr.DataArray:
    for name in ("level", "isobaricInhPa", "pressure_level", "plev", "pressure", "lev"):
        if name not in field.dims:
            continue
        in_hpa = field[name].values / (100.0 if field[name].attrs.get("units") == "Pa" else 1.0)
        found = np.flatnonzero(np.isclose(in_hpa, level))
        if found.size:
            return field.isel({name: int(found[0])}, drop=True)
        raise InputError(
            f"{field.name} has no level {level:g} hPa",
            where=where,
            remedy=f"its levels are {', '.join(f'{value:g}' for value in in_hpa)}",
        )
    raise InputError(f"{field.name} has no pressure levels", where=where)


def _dims(field: xr.DataArray, grid: RegularGrid, where: str) -> tuple[str, ...]:
    others = [str(dim) for dim in field.dims if dim not in (grid.latitude_dim, grid.longitude_dim)]
    long_ones = [dim for dim in others if field.sizes[dim] > 1]
    if len(long_ones) > 1:
        raise InputError(
            f"{field.name} varies along {', '.join(long_ones)}, at most time is expected",
            where=where,
            remedy="select one value of the others, for example --select number=0",
        )
    return (*others, grid.latitude_dim, grid.longitude_dim)


def _values(field: xr.DataArray, dims: tuple[str, ...]) -> NDArray[np.float32]:
    ordered = np.asarray(field.transpose(*dims).values, dtype=np.float32)
    return np.ascontiguousarray(ordered.reshape(-1, *ordered.shape[-2:]))


def _like(
    dataset: xr.Dataset, text: str, field: xr.DataArray, dims: tuple[str, ...], where: str
) -> NDArray[np.float32]:
    """The values of another field on the same points and times."""
    other = _read(dataset, text, where)
    same = set(other.dims) == set(field.dims) and all(
        np.array_equal(other[dim].values, field[dim].values) for dim in field.dims
    )
    if not same:
        raise DataError(
            f"{text} is not on the points and times of {field.name}",
            where=where,
            remedy="give fields with the same dimensions and coordinates",
        )
    return _values(other, dims)
