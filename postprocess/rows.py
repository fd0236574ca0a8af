"""The shards of a forecast store as rows of work: which map goes where, and how it is appended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS, LEVELS, Channel
from postprocess.forecast_spec import ForecastSpec
from postprocess.layout import chunk_name
from postprocess.shards import encode_parts

MAP_SHAPE = (len(LATITUDE), len(LONGITUDE))


@dataclass(frozen=True)
class Row:
    """One shard: its number, its place in the fields, and its file."""

    index: int
    member: int
    channel: int
    path: Path


def rows_of(spec: ForecastSpec, directory: Path) -> list[Row]:
    """Every shard of the store in `directory`, member by member, channels in the model's order."""
    places = [
        (member, place) for member in range(len(spec.numbers)) for place in range(len(CHANNELS))
    ]
    return [
        Row(index, member, place, shard_path(directory, CHANNELS[place], member))
        for index, (member, place) in enumerate(places)
    ]


def shard_path(directory: Path, channel: Channel, member: int) -> Path:
    """File of the shard that holds all leads of one member of a channel."""
    level = [] if channel.level_hpa is None else [LEVELS.index(channel.level_hpa)]
    return directory / channel.variable.name / chunk_name(0, member, 0, *level, 0, 0)


def append(fields: NDArray[np.float32], row: Row) -> int:
    """Append the row's map in `fields` (number, channel, latitude, longitude) to its shard as one
    chunk; the chunk's length."""
    parts = encode_parts(fields[row.member, row.channel])
    length = sum(map(len, parts))
    handle = os.open(row.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        written = os.writev(handle, parts)
        if written < length:
            _write_rest(handle, memoryview(b"".join(parts))[written:])
    finally:
        os.close(handle)
    return length


def _write_rest(handle: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(handle, rest) :]
