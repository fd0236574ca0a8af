"""Seeded faults: ways in which a file of a mirror tree can be wrong while it looks right.

Every function rewrites one `MirrorFile` in place (data first, then index, each atomically), and
`make_mirror_tree` writes it anew the next time. Offsets stay true unless the fault is in the index.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import eccodes
import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.constants import GAS_CONSTANT
from ingest.synthetic.grib import index_bytes
from ingest.synthetic.tree import MirrorFile, recipe_path
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.files import write_atomic
from mosaic_core.contract.grid import STANDARD_GRAVITY
from mosaic_core.contract.variables import VARIABLES

Row = dict[str, str | int]
Values = NDArray[np.float64]

_MODEL_PARAMS = frozenset(param for variable in VARIABLES for param in variable.params)
_WINDS = {"u": "v", "v": "u", "10u": "10v", "10v": "10u"}
_MISSING = 9999.0


@dataclass(frozen=True)
class _Message:
    row: Row
    content: bytes

    @property
    def name(self) -> tuple[str, str, int | None]:
        level = self.row.get("levelist")
        return (
            str(self.row["param"]),
            str(self.row["levtype"]),
            None if level is None else int(level),
        )


def _read(file: MirrorFile) -> list[_Message]:
    content = file.data.read_bytes()
    rows: list[Row] = [json.loads(line) for line in file.index.read_text().splitlines()]
    return [
        _Message(row, content[int(row["_offset"]) : int(row["_offset"]) + int(row["_length"])])
        for row in rows
    ]


def _write(file: MirrorFile, messages: list[_Message]) -> None:
    rows: list[Row] = []
    position = 0
    for message in messages:
        rows.append(message.row | {"_offset": position, "_length": len(message.content)})
        position += len(message.content)
    recipe_path(file).unlink(missing_ok=True)
    write_atomic(file.data, b"".join(message.content for message in messages))
    write_atomic(file.index, index_bytes(rows))


def _write_index(file: MirrorFile, rows: list[Row]) -> None:
    recipe_path(file).unlink(missing_ok=True)
    write_atomic(file.index, index_bytes(rows))


def _find(messages: list[_Message], param: str, level: int | None, where: str) -> int:
    for position, message in enumerate(messages):
        if message.name in ((param, "pl", level), (param, "sfc", level)):
            return position
    raise InputError(f"no field {param} at {level}", where=where, remedy="see its index")


def _edited(content: bytes, change: Callable[[int], None]) -> bytes:
    """A message after `change` has worked on its ecCodes handle."""
    handle = eccodes.codes_new_from_message(content)
    try:
        change(handle)
        return bytes(eccodes.codes_get_message(handle))
    finally:
        eccodes.codes_release(handle)


def _revalued(content: bytes, change: Callable[[Values], Values]) -> bytes:
    def work(handle: int) -> None:
        shape = eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni")
        values = eccodes.codes_get_values(handle).reshape(shape)
        eccodes.codes_set_values(handle, np.ascontiguousarray(change(values)).ravel())

    return _edited(content, work)


def change_values(
    file: MirrorFile,
    change: Callable[[Values], Values],
    params: frozenset[str] = _MODEL_PARAMS,
    level: int | None = None,
) -> None:
    """Replace the values (latitude, longitude) of the model's fields, or of some of them.

    `params` are shortNames, `level` restricts it to one pressure level.
    """
    messages = [
        _Message(message.row, _revalued(message.content, change))
        if message.name[0] in params
        and message.name[1] != "sol"
        and level in (None, message.name[2])
        else message
        for message in _read(file)
    ]
    _write(file, messages)


def roll_longitude(file: MirrorFile) -> None:
    """All fields turned by 180 degrees under an unchanged header."""
    change_values(file, lambda values: np.roll(values, values.shape[1] // 2, axis=1))


def flip_latitude(file: MirrorFile) -> None:
    """All fields stored south to north under a header that says north to south."""
    change_values(file, lambda values: values[::-1])


def kelvin_to_celsius(file: MirrorFile) -> None:
    """All temperatures in degrees Celsius."""
    change_values(file, lambda values: values - 273.15, frozenset({"t", "2t"}))


def height_for_geopotential(file: MirrorFile) -> None:
    """Geopotential height in metres under the label of geopotential (or the other way round)."""
    change_values(file, lambda values: values / STANDARD_GRAVITY, frozenset({"z"}))
    change_values(file, lambda values: values * STANDARD_GRAVITY, frozenset({"gh"}))


def humidity_in_grams(file: MirrorFile) -> None:
    """Specific humidity in g/kg: a thousand times too much."""
    change_values(file, lambda values: values * 1000.0, frozenset({"q"}))


def geometric_velocity(file: MirrorFile) -> None:
    """Vertical velocity in m/s, upward positive, in place of omega in Pa/s."""
    for level in sorted({m.name[2] or 0 for m in _read(file) if m.name[0] == "w"}):
        density = level * 100.0 / (GAS_CONSTANT * 250.0)
        scale = -1.0 / (density * STANDARD_GRAVITY)
        change_values(file, lambda values, k=scale: values * k, frozenset({"w"}), level)  # type: ignore[misc]


def constant_field(file: MirrorFile, param: str, level: int | None) -> None:
    """One field everywhere equal to its mean."""
    change_values(file, lambda v: np.full_like(v, v.mean()), frozenset({param}), level)


def missing_block(file: MirrorFile, param: str, level: int | None) -> None:
    """One field without values (bitmap) in a block of a tenth of the rows and columns."""

    def change(handle: int) -> None:
        shape = eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni")
        values = eccodes.codes_get_values(handle).reshape(shape)
        values[shape[0] // 3 : shape[0] // 3 + shape[0] // 10, : shape[1] // 10] = _MISSING
        eccodes.codes_set(handle, "missingValue", _MISSING)
        eccodes.codes_set(handle, "bitmapPresent", 1)
        eccodes.codes_set_values(handle, values.ravel())

    _edit_one(file, param, level, lambda content: _edited(content, change))


def swap_levels(file: MirrorFile, param: str, first: int, second: int) -> None:
    """Two levels of a parameter exchanged, each under the label of the other."""
    _swap(file, ((param, first), (param, second)))


def swap_winds(file: MirrorFile) -> None:
    """u and v exchanged at all levels and at 10 m."""
    pairs = [
        ((m.name[0], m.name[2]), (_WINDS[m.name[0]], m.name[2]))
        for m in _read(file)
        if m.name[0] in ("u", "10u")
    ]
    _swap(file, *pairs)


def _swap(file: MirrorFile, *pairs: tuple[tuple[str, int | None], tuple[str, int | None]]) -> None:
    """Exchange the values of pairs of fields; each message keeps its own label."""
    messages = _read(file)
    for one, other in pairs:
        i, j = (_find(messages, param, level, str(file.index)) for param, level in (one, other))
        first, second = messages[i], messages[j]
        messages[i] = _Message(first.row, _with_values_of(first.content, second.content))
        messages[j] = _Message(second.row, _with_values_of(second.content, first.content))
    _write(file, messages)


def _with_values_of(label: bytes, values: bytes) -> bytes:
    donor = eccodes.codes_new_from_message(values)
    try:
        taken = eccodes.codes_get_values(donor)
    finally:
        eccodes.codes_release(donor)
    return _edited(label, lambda handle: eccodes.codes_set_values(handle, taken))


def _edit_one(
    file: MirrorFile, param: str, level: int | None, edit: Callable[[bytes], bytes]
) -> None:
    messages = _read(file)
    at = _find(messages, param, level, str(file.index))
    messages[at] = _Message(messages[at].row, edit(messages[at].content))
    _write(file, messages)


def _redated(content: bytes, cycle: Cycle) -> bytes:
    def change(handle: int) -> None:
        eccodes.codes_set(handle, "dataDate", int(f"{cycle.datetime:%Y%m%d}"))
        eccodes.codes_set(handle, "dataTime", cycle.datetime.hour * 100)

    return _edited(content, change)


def repeat_cycle(file: MirrorFile, older: MirrorFile, *, redated: bool = True) -> None:
    """The fields of an older cycle served as this one; with its old date unless `redated`."""
    moment = file.cycle.datetime
    dates: Row = {"date": f"{moment:%Y%m%d}", "time": f"{moment:%H}00"}
    messages = _read(older)
    if redated:
        messages = [_Message(m.row | dates, _redated(m.content, file.cycle)) for m in messages]
    _write(file, messages)


def field_of_another_time(
    file: MirrorFile, other: MirrorFile, param: str, level: int | None, *, redated: bool
) -> None:
    """One message taken from another cycle's file; its header says so unless `redated`."""
    donors = _read(other)
    donor = donors[_find(donors, param, level, str(other.index))].content
    taken = _redated(donor, file.cycle) if redated else donor
    _edit_one(file, param, level, lambda _: taken)


def wrong_stream(file: MirrorFile, stream: str = "enfo") -> None:
    """All messages and rows of another stream under the expected file name."""
    messages = [
        _Message(
            message.row | {"stream": stream},
            _edited(message.content, lambda handle: eccodes.codes_set(handle, "stream", stream)),
        )
        for message in _read(file)
    ]
    _write(file, messages)


def flip_bytes(file: MirrorFile, param: str, level: int | None, count: int = 8) -> None:
    """Some bytes in the middle of the packed values of one message inverted."""

    def flip(content: bytes) -> bytes:
        damaged = bytearray(content)
        middle = len(damaged) // 2
        damaged[middle : middle + count] = bytes(b ^ 0xFF for b in damaged[middle : middle + count])
        return bytes(damaged)

    _edit_one(file, param, level, flip)


def truncate(file: MirrorFile, fraction: float = 0.7) -> None:
    """The data file cut short; the index still describes all of it."""
    content = file.data.read_bytes()
    recipe_path(file).unlink(missing_ok=True)
    write_atomic(file.data, content[: int(len(content) * fraction)])


def drop_field(file: MirrorFile, param: str, level: int | None) -> None:
    """One message absent from both the data and the index."""
    messages = _read(file)
    del messages[_find(messages, param, level, str(file.index))]
    _write(file, messages)


def drop_row(file: MirrorFile, param: str, level: int | None) -> None:
    """One row absent from the index; the message is there."""
    messages = _read(file)
    at = _find(messages, param, level, str(file.index))
    _write_index(file, [m.row for m in messages[:at] + messages[at + 1 :]])


def duplicate_row(file: MirrorFile, param: str, level: int | None) -> None:
    """One field described twice in the index."""
    messages = _read(file)
    at = _find(messages, param, level, str(file.index))
    _write_index(file, [m.row for m in [*messages, messages[at]]])


def row_out_of_bounds(file: MirrorFile, param: str, level: int | None) -> None:
    """One row that points behind the end of the data."""
    messages = _read(file)
    at = _find(messages, param, level, str(file.index))
    rows = [m.row for m in messages]
    rows[at] = rows[at] | {"_offset": file.data.stat().st_size + 1000}
    _write_index(file, rows)


def rows_off_by_one(file: MirrorFile) -> None:
    """Every row describes the bytes of the message after its own: in bounds, and wrong."""
    rows = [m.row for m in _read(file)]
    places = [{"_offset": row["_offset"], "_length": row["_length"]} for row in rows]
    turned = [*places[1:], places[0]]
    _write_index(file, [row | place for row, place in zip(rows, turned, strict=True)])


def stale_index(file: MirrorFile, other: MirrorFile) -> None:
    """The byte ranges of another file beside this file's data, with this file's dates."""
    moment = file.cycle.datetime
    dates: Row = {"date": f"{moment:%Y%m%d}", "time": f"{moment:%H}00"}
    _write_index(file, [m.row | dates for m in _read(other)])
