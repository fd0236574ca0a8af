"""Analyses in files of the user's own: GRIB files and Zarr stores, local or through fsspec."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ingest.analysis import analysis_from_fields
from ingest.decode import MessageHeader
from ingest.gate.reference import planes_of
from ingest.planes import RegridderCache, channel_of
from ingest.stores import StoreSource, read_store, store_times
from ingest.user_grib import reader_of
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.grid import STANDARD_GRAVITY

_ONE_TIME = "give the fields of one time, z or gh"


def analyses_in(address: str) -> Iterator[xr.Dataset]:
    """Every analysis in a GRIB file or a Zarr store, by time: ANALYSIS schema, one time each.

    A GRIB file (edition 1 or 2, any packing) holds the 82 fields of one or more times on any global
    latitude-longitude or Gaussian grid; a store is laid out like WeatherBench 2. Raises InputError
    for what is neither, DataError for times that are incomplete or at no cycle's hour.
    """
    if _is_store(address):
        yield from _from_store(address)
    else:
        with _local(address) as path:
            yield from _from_grib(path, address)


def planes_in(address: str) -> dict[str, NDArray[np.floating]]:
    """The model's channels that one time of a GRIB file or Zarr store holds, however few.

    (latitude, longitude) on the model's grid, SI units. Raises DataError for several times.
    """
    if _is_store(address):
        return dict(planes_of(next(_from_store(address))))
    found: dict[str, NDArray[np.floating]] = {}
    regridders = RegridderCache()
    with _local(address) as path:
        for field in reader_of(path).messages(path, _is_channel):
            channel = channel_of(field.header.key)
            assert channel is not None, "only channels are read"
            if channel.name in found:
                raise DataError(
                    f"{channel.name} is there more than once", where=address, remedy=_ONE_TIME
                )
            scale = STANDARD_GRAVITY if field.header.key.param == "gh" else 1.0
            found[channel.name] = regridders.of(field)(field.values) * np.float32(scale)
    return found


def _is_store(address: str) -> bool:
    return address.rstrip("/").endswith(".zarr") or Path(address).is_dir()


def _from_store(address: str) -> Iterator[xr.Dataset]:
    source = StoreSource(Path(address).name, address)
    for time in store_times(source):
        yield read_store(source, _cycle(time, address))


def _cycle(time: np.datetime64, where: str) -> Cycle:
    try:
        return Cycle.from_datetime64(time)
    except InputError as error:
        raise DataError(
            f"holds a time that is no analysis's: {error.what}",
            where=where,
            remedy="give fields of 00, 06, 12 or 18 UTC",
        ) from None


@contextmanager
def _local(address: str) -> Iterator[Path]:
    """The file itself, or a copy that goes when done."""
    if "://" not in address:
        yield Path(address)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(address).name
        try:
            fsspec.filesystem(address.split("://")[0]).get(address, str(path))
        except Exception as error:  # noqa: BLE001 - every backend has exceptions of its own
            raise InputError(
                f"cannot read it ({type(error).__name__}: {str(error)[:200]})",
                where=address,
                remedy="check the address and the credentials",
            ) from None
        yield path


def _from_grib(path: Path, address: str) -> Iterator[xr.Dataset]:
    reader = reader_of(path)
    headers = [header for header in reader.headers(path) if _is_channel(header)]
    _require_fields(headers, address)
    for time in sorted({header.valid_time for header in headers}):
        _cycle(time, address)
        fields = reader.messages(path, _is_at(time))
        dataset = analysis_from_fields(fields, time, f"{address} {time}")
        yield dataset.assign_attrs(source=Path(address).name, data_url=address, reader=reader.name)


def _is_channel(header: MessageHeader) -> bool:
    return channel_of(header.key) is not None


def _is_at(time: np.datetime64) -> Callable[[MessageHeader], bool]:
    return lambda header: bool(header.valid_time == time)


def _require_fields(headers: Sequence[MessageHeader], address: str) -> None:
    if not headers:
        raise DataError(
            "holds none of the fields that the model needs",
            where=address,
            remedy="give 2t, 10u, 10v, msl, and z or gh, q, t, u, v, w on the 13 levels",
        )
