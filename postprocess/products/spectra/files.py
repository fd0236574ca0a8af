"""Spectra of winds in any CF file on a regular grid with poles."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.grids import RegularGrid, read_grid, without_repeated_meridian
from postprocess.products.spectra.energy import Operator, kinetic_energy, operator
from postprocess.products.spectra.guard import require_row_order

RowOrder = Literal["labels", "north-south", "south-north"]

_SPEED_UNITS = {"m s-1", "m/s", "m s**-1", "m s^-1", "m.s-1", "meter second-1", "ms-1"}


def wind_spectra(
    dataset: xr.Dataset,
    u_name: str,
    v_name: str,
    *,
    lmax: int | None = None,
    row_order: RowOrder = "labels",
    where: str = "dataset",
) -> xr.Dataset:
    """Rotational and divergent kinetic energy per degree of the winds `u_name`, `v_name`.

    The winds need a latitude and a longitude in any order of dimensions; every other dimension is
    kept. Result: ke_rot and ke_div (..., degree) float64, m2 s-2. With `row_order` "labels" the
    rows run as the latitude says, and winds that make sense only upside down are refused;
    "north-south" or "south-north" state the order and skip that check.
    """
    u, v = (_wind(dataset, name, where) for name in (u_name, v_name))
    grid = read_grid(u, where)
    if v.dims != u.dims:
        v = v.transpose(*u.dims)
    _require_same_points(u, v, where)
    grid.require_poles(where)
    horizontal = (grid.latitude_dim, grid.longitude_dim)
    others = tuple(str(dim) for dim in u.dims if dim not in horizontal)
    fields = [_eastward(array.transpose(*others, *horizontal), grid) for array in (u, v)]
    _require_finite(fields, (u_name, v_name), where)
    op = _operator(grid, lmax, row_order)
    energies = kinetic_energy(op, *fields)
    if row_order == "labels":
        require_row_order(op, (fields[0], fields[1]), energies, where)
    return _dataset(energies, u, others, (u_name, v_name))


def _wind(dataset: xr.Dataset, name: str, where: str) -> xr.DataArray:
    if name not in dataset.data_vars:
        raise InputError(
            f"no variable {name!r}",
            where=where,
            remedy=f"the file holds {', '.join(map(str, dataset.data_vars))}",
        )
    units = str(dataset[name].attrs.get("units", "m s-1"))
    if units not in _SPEED_UNITS:
        raise DataError(
            f"{name} is in {units!r}, not in m s-1",
            where=where,
            remedy="convert the winds to m s-1",
        )
    return without_repeated_meridian(dataset[name], where)


def _require_same_points(u: xr.DataArray, v: xr.DataArray, where: str) -> None:
    for dim in u.dims:
        if u.sizes[dim] != v.sizes[dim] or not np.array_equal(u[dim].values, v[dim].values):
            raise DataError(
                f"{u.name} and {v.name} differ along {dim}",
                where=where,
                remedy="both components must be given on the same points",
            )


def _eastward(field: xr.DataArray, grid: RegularGrid) -> NDArray[np.float64]:
    values = np.asarray(field.values, dtype=np.float64)
    westward = grid.longitude[0] > grid.longitude[-1]
    return np.ascontiguousarray(values[..., ::-1]) if westward else values


def _require_finite(fields: list[NDArray[np.float64]], names: tuple[str, str], where: str) -> None:
    for values, name in zip(fields, names, strict=True):
        missing = np.count_nonzero(~np.isfinite(values))
        if missing:
            raise DataError(
                f"{name} has {missing} missing or non-finite values",
                where=where,
                remedy="a global spectrum needs every point: fill or select other fields",
            )


def _operator(grid: RegularGrid, lmax: int | None, row_order: RowOrder) -> Operator:
    south_first = grid.south_first if row_order == "labels" else row_order == "south-north"
    size = grid.latitude.size, grid.longitude.size
    return operator(*size, spin=1, lmax=lmax, south_first=south_first)


def _dataset(
    energies: tuple[NDArray[np.float64], NDArray[np.float64]],
    u: xr.DataArray,
    others: tuple[str, ...],
    names: tuple[str, str],
) -> xr.Dataset:
    kinds = {"ke_rot": "rotational", "ke_div": "divergent"}
    arrays = {
        name: (
            (*others, "degree"),
            energy,
            {"long_name": f"{kind} kinetic energy per degree", "units": "m2 s-2"},
        )
        for (name, kind), energy in zip(kinds.items(), energies, strict=True)
    }
    coords = {
        name: value for name, value in u.coords.items() if set(map(str, value.dims)) <= set(others)
    }
    degree = np.arange(energies[0].shape[-1])
    attributes = {"long_name": "total wavenumber", "units": "1"}
    return xr.Dataset(
        arrays,
        coords={**coords, "degree": ("degree", degree, attributes)},
        attrs={
            "Conventions": "CF-1.12",
            "title": f"Kinetic-energy spectra of {names[0]}, {names[1]}",
            "comment": "The sum of ke_rot and ke_div over degrees is the area-mean kinetic energy.",
        },
    )
