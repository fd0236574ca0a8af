"""The shards of a forecast store as rows of work: which map goes where, and how it is appended."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence
from contextlib import suppress
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
# Left to the rest of the process where not all shards can be open.
OTHER_FILES = 512


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


class ShardFiles:
    """The files of a store's shards, open from the first map to the last.

    Opening and closing a file for every map would take as long as writing it. Where the process
    may not have that many files open, those beyond its limit are opened map by map.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._handles: list[int] = []
        _raise_file_limit(len(rows))
        try:
            for row in rows:
                self._handles.append(_open(row))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                self.close()
                raise
            self._close_down_to(max(0, len(self._handles) - OTHER_FILES))

    def append_map(self, row: Row, fields: NDArray[np.float32]) -> int:
        """The row's map in `fields` (number, channel, latitude, longitude) as one more chunk of
        its shard; the chunk's length."""
        return self.append(row, encode_parts(fields[row.member, row.channel]))

    def append(self, row: Row, parts: Sequence[bytes]) -> int:
        """`parts`, one after the other, at the end of the row's shard; their length."""
        if row.index < len(self._handles):
            return _write(self._handles[row.index], parts)
        handle = _open(row)
        try:
            return _write(handle, parts)
        finally:
            os.close(handle)

    def are_there(self) -> bool:
        """Whether the first file still has a name: nobody removed the store meanwhile."""
        return not self._handles or os.fstat(self._handles[0]).st_nlink > 0

    def close(self) -> None:
        """Close every file; a second call does nothing."""
        self._close_down_to(0)

    def _close_down_to(self, count: int) -> None:
        while len(self._handles) > count:
            os.close(self._handles.pop())


def _raise_file_limit(wanted: int) -> None:
    """Let the process have `wanted` more files open, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    more = soft + wanted if hard == resource.RLIM_INFINITY else min(soft + wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))


def _open(row: Row) -> int:
    return os.open(row.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def _write(handle: int, parts: Sequence[bytes]) -> int:
    length = sum(map(len, parts))
    written = os.writev(handle, parts)
    if written < length:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            rest = rest[os.write(handle, rest) :]
    return length
