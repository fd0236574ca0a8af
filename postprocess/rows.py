"""The shards of a forecast store as rows of work: which map goes where, and how it is stored."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property
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
# Maps that a thread rounds and turns at once: few calls, and still in the cache when packed.
BATCH_MAPS = 4


@dataclass(frozen=True)
class Row:
    """One shard: its number, its place in the fields, its file, and its mantissa bits."""

    index: int
    member: int
    channel: int
    path: Path
    bits: int | None


@dataclass(frozen=True)
class Batch:
    """Rows of one member and neighbouring channels: what one thread packs in one go."""

    rows: tuple[Row, ...]

    @property
    def place(self) -> slice:
        """Where the rows are among all rows."""
        return slice(self.rows[0].index, self.rows[-1].index + 1)

    @cached_property
    def bits(self) -> NDArray[np.uint32] | None:
        """Mantissa bits of every map, (map, 1, 1); None where nothing is rounded."""
        bits = [row.bits for row in self.rows if row.bits is not None]
        return np.array(bits, dtype=np.uint32)[:, None, None] if bits else None

    def maps(self, fields: NDArray[np.float32]) -> NDArray[np.float32]:
        """The maps of the batch in (number, channel, longitude, latitude)."""
        return fields[self.rows[0].member, self.rows[0].channel :][: len(self.rows)]


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


def batches_of(rows: list[Row]) -> list[Batch]:
    """All rows as batches of neighbouring channels of one member."""
    starts = [
        index
        for index, row in enumerate(rows)
        if row.channel % BATCH_MAPS == 0  # a batch never goes beyond its member
    ]
    ends = [*starts[1:], len(rows)]
    return [Batch(tuple(rows[start:end])) for start, end in zip(starts, ends, strict=True)]


class Scratch(threading.local):
    """Room of each thread for one batch; small, so that it stays in the cache of the core."""

    def __init__(self) -> None:
        self.rounded = np.empty((BATCH_MAPS, *MAP_SHAPE[::-1]), dtype=np.float32)
        self.turned = np.empty((BATCH_MAPS, *MAP_SHAPE), dtype=np.float32)


def append(fields: NDArray[np.float32], batch: Batch, scratch: Scratch) -> list[int]:
    """Round the maps of a batch and append one chunk to the shard of each; the chunks' lengths.

    `fields` is (number, channel, longitude, latitude).
    """
    count = len(batch.rows)
    # Rounded before it is turned: turning reads with a stride, which is slow outside the cache.
    rounded, turned = scratch.rounded[:count], scratch.turned[:count]
    round_into(rounded, batch.maps(fields), batch.bits)
    np.copyto(turned, rounded.transpose(0, 2, 1))
    return [
        _append_chunk(row.path, encode_chunk(plane))
        for row, plane in zip(batch.rows, turned, strict=True)
    ]


def _append_chunk(path: Path, chunk: bytes) -> int:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(handle, rest) :]
    finally:
        os.close(handle)
    return len(chunk)
