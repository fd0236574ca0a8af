"""GRIB messages in forms that `ingest.decode` does not read, through cfgrib.

cfgrib opens Gaussian grids and rows that run to and fro. It takes columns for rows without a word:
so the corners of each field are compared with what the message says of them, and columns refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ingest.decode import Field, MessageHeader
from ingest.index import FieldKey
from mosaic_core.contract.errors import DataError

_KEYS = ("levtype", "level", "class", "stream", "type", "md5GridSection")
_GRIDS = ("regular_ll", "regular_gg")
# Degrees; GRIB 1 rounds the corners of a grid to a thousandth.
_CORNER_TOLERANCE = 2e-3
_CONVERT = "convert it to global fields on a regular latitude-longitude grid, row by row"


def cfgrib_headers(path: Path) -> Iterator[MessageHeader]:
    """The headers of a file's messages, in cfgrib's order: by parameter, then by coordinates."""
    for header, _ in _fields(path):
        yield header


def cfgrib_messages(
    path: Path, wanted: Callable[[MessageHeader], bool] = lambda _: True
) -> Iterator[Field]:
    """As `ingest.decode.read_messages`, in cfgrib's order.

    Raises DataError for what cfgrib cannot open and for grids without a latitude and a longitude
    axis.
    """
    for header, field in _fields(path):
        if wanted(header):
            yield _loaded(header, field, f"{path} ({header.key})")


def _fields(path: Path) -> Iterator[tuple[MessageHeader, xr.DataArray]]:
    for dataset in _datasets(path):
        for variable in dataset.data_vars.values():
            leading = [dim for dim in variable.dims if dim not in ("latitude", "longitude")]
            for place in product(*(range(variable.sizes[dim]) for dim in leading)):
                one = variable.isel(dict(zip(leading, place, strict=True)))
                yield _header(one, f"{path} ({variable.attrs.get('GRIB_shortName')})"), one


def _datasets(path: Path) -> list[xr.Dataset]:
    from cfgrib.xarray_store import open_variable_datasets

    options = {"indexpath": "", "read_keys": _KEYS, "squeeze": False, "errors": "raise"}
    try:
        return list(open_variable_datasets(str(path), backend_kwargs=options))
    except Exception as error:  # noqa: BLE001 - cfgrib and ecCodes raise many kinds
        raise DataError(
            f"cfgrib cannot open it ({type(error).__name__}: {str(error)[:200]})",
            where=str(path),
            remedy=_CONVERT,
        ) from None


def _header(field: xr.DataArray, where: str) -> MessageHeader:
    said = {name.removeprefix("GRIB_"): value for name, value in field.attrs.items()}
    kind = str(said.get("typeOfLevel", "unknown"))
    level_type = str(said.get("levtype", ""))
    grid = str(said.get("gridType", "unknown"))
    if grid not in _GRIDS or said.get("jPointsAreConsecutive"):
        raise DataError(f"grid {grid} in this order is not read", where=where, remedy=_CONVERT)
    level = int(field[kind]) if kind in field.coords else int(said.get("level", 0))
    return MessageHeader(
        key=FieldKey(str(said["shortName"]), level_type, None if level_type == "sfc" else level),
        type_of_level=kind,
        level=level,
        units=str(said.get("units", "")),
        mars_class=str(said.get("class", "")),
        stream=str(said.get("stream", "")),
        type=str(said.get("type", "")),
        reference_time=_moment(field, "time"),
        valid_time=_moment(field, "valid_time"),
        step=str(int(field["step"] / np.timedelta64(1, "h"))),
        number=int(field["number"]) if "number" in field.coords else None,
        shape=(field.sizes["latitude"], field.sizes["longitude"]),
        grid_md5=str(said.get("md5GridSection", "")),
        layout=grid,
    )


def _moment(field: xr.DataArray, name: str) -> np.datetime64:
    return np.datetime64(int(field[name].values.astype("datetime64[ns]").astype(np.int64)), "ns")


def _loaded(header: MessageHeader, field: xr.DataArray, where: str) -> Field:
    latitude = field["latitude"].values.astype(np.float64)
    longitude = _unwrapped(field["longitude"].values.astype(np.float64))
    _require_corners(latitude, longitude, field.attrs, where)
    values = field.values.astype(np.float32)
    return Field(header, latitude, longitude, values, int(np.isnan(values).sum()))


def _unwrapped(longitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axis without its jump at the date line."""
    return np.rad2deg(np.unwrap(np.deg2rad(longitude)))


def _require_corners(
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    said: Mapping[str, Any],
    where: str,
) -> None:
    axes = {"latitude": latitude, "longitude": longitude}
    for name, axis in axes.items():
        for end, place in (("First", 0), ("Last", -1)):
            stated = float(said[f"GRIB_{name}Of{end}GridPointInDegrees"])
            apart = abs((axis[place] - stated + 180.0) % 360.0 - 180.0)
            if apart > _CORNER_TOLERANCE:
                raise DataError(
                    f"cfgrib puts the {end.lower()} {name} at {axis[place]:g}, "
                    f"the message at {stated:g}",
                    where=where,
                    remedy=_CONVERT,
                )
