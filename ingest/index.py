"""ECMWF `.index` files: which message holds which field, and at which bytes.

One JSON object a line; all MARS values are strings, `_offset` and `_length` are integers, the
order of rows and of keys means nothing, `levelist` is absent at the surface.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.sources import AnalysisLocation
from mosaic_core.contract.errors import DataError, NotYetAvailable
from mosaic_core.contract.variables import CHANNELS, LEVELS, VARIABLES, Channel, Variable

# ecCodes writes powers as `**`; geopotential height comes in geopotential metres.
GRIB_UNITS = {
    param: variable.units.replace("m2", "m**2").replace("s-", "s**-").replace("kg-", "kg**-")
    for variable in VARIABLES
    for param in variable.params
} | {"gh": "gpm"}
FEED_CLASS = "od"
FEED_TYPE = "fc"


@dataclass(frozen=True, order=True)
class FieldKey:
    """What tells one field of an analysis from another; `level` is None at the surface."""

    param: str
    levtype: str
    level: int | None

    def __str__(self) -> str:
        return self.param if self.level is None else f"{self.param} {self.level} {self.levtype}"


STATIC_KEYS = {
    "land_sea_mask": FieldKey("lsm", "sfc", None),
    "geopotential_at_surface": FieldKey("z", "sfc", None),
}


@dataclass(frozen=True)
class IndexRow:
    """One message: its key, its identity (class, stream, type, date, hour, step), its bytes."""

    key: FieldKey
    mars_class: str
    stream: str
    type: str
    date: str
    hour: int
    step: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """First byte after the message."""
        return self.offset + self.length


def parse_index(content: bytes, where: str) -> tuple[IndexRow, ...]:
    """Every row of an index; DataError names the first line that cannot be read."""
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            rows.append(_parse_row(line, f"{where} line {number}"))
    return tuple(rows)


def _parse_row(line: bytes, where: str) -> IndexRow:
    try:
        entry: Mapping[str, Any] = json.loads(line)
        levtype = entry["levtype"]
        level = int(entry["levelist"]) if "levelist" in entry else None
        return IndexRow(
            FieldKey(entry["param"], levtype, level),
            entry["class"], entry["stream"], entry["type"],
            entry["date"], int(entry["time"]) // 100, entry["step"],
            int(entry["_offset"]), int(entry["_length"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a row of an ECMWF index ({type(error).__name__}: {error})",
            where=where,
            remedy="the upload may be unfinished: try again, or take another mirror",
        ) from None


def channel_key(channel: Channel, param: str) -> FieldKey:
    """The key under which `param` carries `channel`."""
    return FieldKey(param, channel.variable.levtype, channel.level_hpa)


def choose_params(keys: Iterable[FieldKey]) -> dict[str, str]:
    """For each variable the shortName to read: the first whose levels are all there.

    A variable is never mixed from two shortNames. Where none is complete the one with most
    fields is named, so that the missing ones are reported against it.
    """
    present = set(keys)
    return {
        variable.name: max(variable.params, key=lambda param: _count(variable, param, present))
        for variable in {channel.variable.name: channel.variable for channel in CHANNELS}.values()
    }


def _count(variable: Variable, param: str, present: set[FieldKey]) -> int:
    levels: Sequence[int | None] = LEVELS if variable.on_levels else (None,)
    return sum(FieldKey(param, variable.levtype, level) in present for level in levels)


def inventory(
    rows: Sequence[IndexRow], location: AnalysisLocation, size: int
) -> dict[str, IndexRow]:
    """Channel name -> row, for exactly the 82 channels, or an error that lists every fault.

    NotYetAvailable when fields are missing or lie beyond the object's `size` (an upload under
    way); DataError when a wanted field is there twice or belongs to another cycle, stream, step
    or class.
    """
    by_key: dict[FieldKey, list[IndexRow]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    params = choose_params(by_key)
    found = {
        channel.name: by_key.get(channel_key(channel, params[channel.variable.name]), [])
        for channel in CHANNELS
    }
    _refuse_wrong(found, location)
    _refuse_incomplete(found, location, size, params)
    return {name: candidates[0] for name, candidates in found.items()}


def static_rows(rows: Sequence[IndexRow], size: int) -> dict[str, IndexRow]:
    """The rows of the land mask and the surface geopotential, those that are there once, whole.

    They come with step 0 of some eras, and are compared with the model's own; nothing waits for
    them.
    """
    found = {}
    for name, key in STATIC_KEYS.items():
        candidates = [row for row in rows if row.key == key and 0 <= row.offset < row.end <= size]
        if len(candidates) == 1:
            found[name] = candidates[0]
    return found


def _refuse_wrong(found: Mapping[str, list[IndexRow]], location: AnalysisLocation) -> None:
    faults = [f"{name}: listed {len(rows)} times" for name, rows in found.items() if len(rows) > 1]
    faults += [
        f"{name}: {fault}"
        for name, rows in found.items()
        for row in rows
        for fault in _identity_faults(row, location)
    ]
    if faults:
        raise DataError(
            f"the index does not describe this cycle once: {_listed(faults)}",
            where=location.index_url,
            remedy="take another mirror; if all agree, the layout of the feed has changed",
        )


def _identity_faults(row: IndexRow, location: AnalysisLocation) -> list[str]:
    moment = location.cycle.datetime
    expected = {
        "class": (row.mars_class, FEED_CLASS),
        "type": (row.type, FEED_TYPE),
        "stream": (row.stream, location.stream),
        "date": (row.date, f"{moment:%Y%m%d}"),
        "hour": (row.hour, moment.hour),
        "step": (row.step, str(location.step)),
    }
    return [
        f"{name} is {value}, expected {wanted}"
        for name, (value, wanted) in expected.items()
        if value != wanted
    ]


def _refuse_incomplete(
    found: Mapping[str, list[IndexRow]],
    location: AnalysisLocation,
    size: int,
    params: Mapping[str, str],
) -> None:
    faults = [
        f"{channel.name} ({channel_key(channel, params[channel.variable.name])}): missing"
        for channel in CHANNELS
        if not found[channel.name]
    ]
    faults += [
        f"{name}: bytes {row.offset}-{row.end} lie outside the file of {size} bytes"
        for name, rows in found.items()
        for row in rows
        if row.offset < 0 or row.length <= 0 or row.end > size
    ]
    if faults:
        raise NotYetAvailable(
            f"{len(faults)} of {len(CHANNELS)} fields are not there: {_listed(faults)}",
            where=location.index_url,
            remedy="the upload may be under way: wait, or take another mirror",
        )


def _listed(faults: Sequence[str], limit: int = 12) -> str:
    shown = "; ".join(faults[:limit])
    return shown if len(faults) <= limit else f"{shown}; and {len(faults) - limit} more"


@dataclass(frozen=True)
class ByteRange:
    """Bytes [start, end) of an object."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.end - self.start

    @property
    def header(self) -> str:
        """Value of the HTTP Range header."""
        return f"bytes={self.start}-{self.end - 1}"


def merge_ranges(rows: Iterable[IndexRow], gap: int) -> tuple[ByteRange, ...]:
    """The rows' bytes in file order, joined where at most `gap` unwanted bytes lie between."""
    merged: list[ByteRange] = []
    for row in sorted(rows, key=lambda row: row.offset):
        if merged and row.offset - merged[-1].end <= gap:
            merged[-1] = ByteRange(merged[-1].start, max(merged[-1].end, row.end))
        else:
            merged.append(ByteRange(row.offset, row.end))
    return tuple(merged)
