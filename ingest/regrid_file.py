"""By hand: every message of a GRIB file on the 1.5 degree grid, as NetCDF."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ingest.decode import Field, MessageHeader
from ingest.planes import RegridderCache
from ingest.user_grib import reader_of
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.files import sync_directory
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import COORDINATE_ATTRIBUTES

# Level types that are one place, so that their level does not tell two fields apart.
_ONE_PLACE = frozenset(
    {"surface", "meanSea", "heightAboveGround", "entireAtmosphere", "nominalTop", "unknown"}
)
_METHOD = "first-order conservative; a cell is the mean of the valid part of its area"


def regrid_file(
    source: Path, target: Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[str, ...]:
    """Write every message of `source` to the NetCDF file `target`; the names of the variables.

    Variables are float32 (latitude 90S..90N, longitude 0..358.5), named shortName, or
    shortName_level where the level tells fields apart. Where a file holds several steps, members
    or times of a field, the name goes on with _stepS, _numberN, _timeT. `progress` gets (messages
    done, messages in all). The target appears whole or not at all.

    Raises InputError for paths that cannot be used, DataError for damaged messages, grids that
    are not global with a latitude and a longitude axis, and messages that are doubled.
    """
    _require_place(target)
    reader = reader_of(source)
    names = variable_names(list(reader.headers(source)), str(source))
    regridders = RegridderCache()
    variables: dict[str, xr.DataArray] = {}
    for name, field in zip(names, reader.messages(source, _any), strict=True):
        variables[name] = _variable(field, regridders)
        if progress is not None:
            progress(len(variables), len(names))
    _write(_dataset(variables, source).assign_attrs(reader=reader.name), target)
    return names


def _any(_header: MessageHeader) -> bool:
    return True


def variable_names(headers: Sequence[MessageHeader], where: str) -> tuple[str, ...]:
    """One name for each message, all different; DataError names messages that are doubled."""
    names = [_base_name(header) for header in headers]
    for label, value in _QUALIFIERS.items():
        values: dict[str, set[str]] = {}
        for name, header in zip(names, headers, strict=True):
            values.setdefault(name, set()).add(value(header))
        names = [
            f"{name}_{label}{value(header)}" if len(values[name]) > 1 else name
            for name, header in zip(names, headers, strict=True)
        ]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise DataError(
            f"messages that cannot be told apart: {', '.join(doubled)}",
            where=where,
            remedy="give each field once",
        )
    return tuple(names)


def _base_name(header: MessageHeader) -> str:
    if header.key.levtype == "sfc" or header.type_of_level in _ONE_PLACE:
        return header.key.param
    return f"{header.key.param}_{header.level}"


_QUALIFIERS: Mapping[str, Callable[[MessageHeader], str]] = {
    "step": lambda header: header.step,
    "number": lambda header: str(header.number),
    "time": lambda header: np.datetime_as_string(header.valid_time, unit="m").replace(":", ""),
    "class": lambda header: header.mars_class,
}


def _variable(field: Field, regridders: RegridderCache) -> xr.DataArray:
    header = field.header
    attributes = {
        "units": header.units,
        "GRIB_shortName": header.key.param,
        "GRIB_typeOfLevel": header.type_of_level,
        "GRIB_level": header.level,
        "valid_time": np.datetime_as_string(header.valid_time, unit="s"),
        "missing_source_points": field.missing,
    }
    values = regridders.of(field)(field.values)
    return xr.DataArray(values, dims=("latitude", "longitude"), attrs=attributes)


def _dataset(variables: Mapping[str, xr.DataArray], source: Path) -> xr.Dataset:
    attributes = {"Conventions": "CF-1.11", "source": source.name, "regridding": _METHOD}
    dataset = xr.Dataset(
        dict(variables), coords={"latitude": LATITUDE, "longitude": LONGITUDE}, attrs=attributes
    )
    for name in ("latitude", "longitude"):
        dataset[name].attrs.update(COORDINATE_ATTRIBUTES[name])
    return dataset


def _require_place(target: Path) -> None:
    if not target.parent.is_dir() or target.is_dir():
        raise InputError(
            "cannot write a file here",
            where=str(target),
            remedy="give a file in a folder that exists",
        )


def _write(dataset: xr.Dataset, target: Path) -> None:
    """NetCDF-3 with 64-bit offsets: written with SciPy, read by everything."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    encoding = {str(name): {"_FillValue": np.float32("nan")} for name in dataset.data_vars}
    try:
        dataset.to_netcdf(aside, engine="scipy", format="NETCDF3_64BIT", encoding=encoding)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(target.parent)
