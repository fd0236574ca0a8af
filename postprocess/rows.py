"""The shards of a forecast store as rows of work: which map goes where, and how it is stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS, LEVELS, Channel
from postprocess.forecast_spec import ForecastSpec
from postprocess.layout import chunk_name
from postprocess.rounding import keep_bits, round_into
from postprocess.shards import encode_chunk

MAP_SHAPE = (len(LATITUDE), len(LONGITUDE))


@dataclass(frozen=True)
class Row:
    """One shard: its number, its place in the fields, its file, and its mantissa bits."""

    index: int
    member: int
    channel: int
    path: Path
    bits: int | None


def rows_of(spec: ForecastSpec, directory: Path) -> list[Row]:
    """Every shard of the store in `directory`, member by member, channels in the model's order."""
    places = [
        (member, place) for member in range(len(spec.numbers)) for place in range(len(CHANNELS))
    ]
    return [
        Row(
            index,
            member,
            place,
            shard_path(directory, CHANNELS[place], member),
            keep_bits(CHANNELS[place], spec.rounding),
        )
        for index, (member, place) in enumerate(places)
    ]


def shard_path(directory: Path, channel: Channel, member: int) -> Path:
    """File of the shard that holds all leads of one member of a channel."""
    level = [] if channel.level_hpa is None else [LEVELS.index(channel.level_hpa)]
    return directory / channel.variable.name / chunk_name(0, member, 0, *level, 0, 0)


def fill(buffer: NDArray[np.float32], fields: NDArray[np.float32], rows: Sequence[Row]) -> None:
    """Rounded maps of every row into `buffer` (row, latitude, longitude), owned by the store.

    `fields` is (number, channel, longitude, latitude).
    """
    # Rounded before it is turned: turning reads with a stride, which is slow outside the cache.
    plane = np.empty(MAP_SHAPE[::-1], dtype=np.float32)
    for row in rows:
        round_into(plane, fields[row.member, row.channel], row.bits)
        np.copyto(buffer[row.index], plane.T)


def append(buffer: NDArray[np.float32], rows: Sequence[Row]) -> list[int]:
    """Append one chunk to the shard of each row; the lengths of the chunks."""
    return [_append_chunk(row.path, encode_chunk(buffer[row.index])) for row in rows]


def _append_chunk(path: Path, chunk: bytes) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)
    return len(chunk)
