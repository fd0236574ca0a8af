"""The point-chunked copy: a second store of the surface and headline fields for time series.

One chunk holds all members and leads of an 11 x 12 tile, so a meteogram or a member plume is one
read of about 0.1 MB instead of one per map. It is made from the finished forecast store, channel
by channel, and holds the same values to the bit.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import channel
from postprocess.forecast_spec import ForecastSpec
from postprocess.layout import POINT_CHANNELS, POINT_TILE, chunk_name, points_document
from postprocess.rows import shard_path
from postprocess.shards import decode_chunk, encode_chunk, encode_index, split_shard
from postprocess.store_files import (
    disk_errors,
    replace_store,
    write_coordinates,
    write_documents,
)
from postprocess.structure import guard, template_name

_MAP_SHAPE = (len(LATITUDE), len(LONGITUDE))
# A channel of 24 members and 41 leads is 114 MB of float32; this bounds how many are in memory.
_CHANNELS_AT_ONCE = 2


def write_points(forecast: Path, path: Path, spec: ForecastSpec) -> None:
    """Make the point store `path` from the finished local store `forecast` of the same `spec`.

    A store at `path` is replaced. StoreError: the forecast store is damaged or incomplete, or the
    disk is full.
    """
    document = points_document(spec.sizes, spec.rounding, spec.attributes())
    guard(document, template_name("points", spec.rounding), spec.open_sizes)
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        shutil.rmtree(partial, ignore_errors=True)
        with ThreadPoolExecutor(_CHANNELS_AT_ONCE, thread_name_prefix="points") as pool:
            list(
                pool.map(lambda name: _write_channel(forecast, partial, name, spec), POINT_CHANNELS)
            )
        write_coordinates(partial, document, spec.coordinates())
        write_documents(partial, document)
        replace_store(partial, path)


def _write_channel(forecast: Path, partial: Path, name: str, spec: ForecastSpec) -> None:
    values = _channel_values(forecast, name, spec)
    shard = partial / name / chunk_name(0, 0, 0, 0, 0)
    shard.parent.mkdir(parents=True)
    with shard.open("wb") as file:
        lengths = []
        for tile in _tiles(values):
            chunk = encode_chunk(tile)
            file.write(chunk)
            lengths.append(len(chunk))
        file.write(encode_index(lengths))


def _tiles(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Tiles of (number, lead, latitude, longitude) in C order, each contiguous when asked for."""
    rows, columns = POINT_TILE
    corners = itertools.product(range(0, _MAP_SHAPE[0], rows), range(0, _MAP_SHAPE[1], columns))
    for row, column in corners:
        yield np.ascontiguousarray(values[..., row : row + rows, column : column + columns])


def _channel_values(forecast: Path, name: str, spec: ForecastSpec) -> NDArray[np.float32]:
    """(number, lead, latitude, longitude) as stored."""
    leads = len(spec.lead_times)
    values = np.empty((len(spec.numbers), leads, *_MAP_SHAPE), dtype=np.float32)
    for member in range(len(spec.numbers)):
        path = shard_path(forecast, channel(name), member)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(
                "a shard of the forecast is missing",
                where=str(path),
                remedy="remove the store and run the cycle again",
            ) from None
        for lead, chunk in enumerate(split_shard(content, leads, str(path))):
            values[member, lead] = decode_chunk(chunk, _MAP_SHAPE, str(path))
    return values
