"""GRIB messages as arrays, one at a time, with ecCodes.

Values are float32 where the packing allows (ecCodes decodes IEEE-packed fields to float64 only);
points missing by bitmap are NaN. Axes are read from the message: the longitude origin of the
feed has changed before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import eccodes
import numpy as np
from numpy.typing import NDArray

from ingest.ccsds import PackingError, plain_values
from ingest.index import FieldKey
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.variables import CHANNELS

# The value that ecCodes and older encoders leave at missing points.
SENTINEL = 9999.0
_DAMAGED = "the file is damaged: fetch it again"


@dataclass(frozen=True)
class MessageHeader:
    """What a message says of itself, without its values.

    `key` names the field as MARS does (shortName, levtype, level on levels only); `level` and
    `type_of_level` are ecCodes' own. `reference_time` and `valid_time` are UTC without a zone;
    `shape` is (rows, columns) of the grid, `layout` its type and, unless it is row by row, the
    order of its points.
    """

    key: FieldKey
    type_of_level: str
    level: int
    units: str
    mars_class: str
    stream: str
    type: str
    reference_time: np.datetime64
    valid_time: np.datetime64
    step: str
    number: int | None
    shape: tuple[int, int]
    grid_md5: str
    layout: str


ROWS = "regular_ll"
"""The layout that is read here: latitudes by longitudes, row by row."""


@dataclass(frozen=True)
class Field:
    """One decoded message: float32 `values` (latitude, longitude) in the order of the message.

    `latitude` and `longitude` are degrees, float64; longitude runs on from the first point
    without a jump (180 .. 539.75). `missing` counts the NaN among the values.
    """

    header: MessageHeader
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    values: NDArray[np.float32]
    missing: int

    @property
    def first_longitude(self) -> float:
        """Longitude of the first column, degrees east."""
        return float(self.longitude[0])


def read_messages(
    path: Path, wanted: Callable[[MessageHeader], bool] = lambda _: True, *, units: bool = True
) -> Iterator[Field]:
    """The messages of a GRIB file whose header is `wanted`, in file order, one in memory at a time.

    Without `units` the headers' are empty: ecCodes parses a table of its own for them, which takes
    as long as five messages.
    Raises DataError naming file, message and byte for anything that is not a whole message.
    """
    for number, handle in enumerate(_handles(path), start=1):
        where = f"{path} message {number}"
        with _refusing(where):
            header = read_header(handle, units=units)
        if wanted(header):
            yield _decoded(handle, header, where)


def read_headers(path: Path) -> Iterator[MessageHeader]:
    """The headers only, as `read_messages`."""
    for number, handle in enumerate(_handles(path), start=1):
        with _refusing(f"{path} message {number}"):
            yield read_header(handle)


def _handles(path: Path) -> Iterator[Any]:
    """ecCodes handles; each is released when the next is asked for."""
    end = 0
    with _opened(path) as file:
        while True:
            with _refusing(f"{path} after byte {end}"):
                handle = eccodes.codes_grib_new_from_file(file)
            if handle is None:
                break
            try:
                start = int(eccodes.codes_get(handle, "offset"))
                _require_padding(path, end, start)
                end = start + int(eccodes.codes_get(handle, "totalLength"))
                yield handle
            finally:
                eccodes.codes_release(handle)
    _require_padding(path, end, path.stat().st_size)
    if end == 0:
        raise DataError("no GRIB message in this file", where=str(path), remedy=_DAMAGED)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(
            f"cannot open it: {error.strerror}", where=str(path), remedy="check the path"
        ) from None


def _require_padding(path: Path, start: int, end: int) -> None:
    """Between messages only zero bytes may stand: ecCodes skips a broken message in silence."""
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        between = file.read(end - start)
    if between.strip(b"\0"):
        raise DataError(
            f"bytes {start}-{end} are not a whole GRIB message", where=str(path), remedy=_DAMAGED
        )


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except (eccodes.CodesInternalError, PackingError) as error:
        raise DataError(f"it cannot be decoded: {error}", where=where, remedy=_DAMAGED) from None


@contextmanager
def open_message(content: bytes, where: str) -> Iterator[Any]:
    """An ecCodes handle on one message in memory; DataError when it is not one."""
    with _refusing(where):
        handle = eccodes.codes_new_from_message(content)
    try:
        yield handle
    finally:
        eccodes.codes_release(handle)


def read_header(handle: Any, *, units: bool = True) -> MessageHeader:
    """The header of an open message; without `units`, which cost most, these are empty."""
    level_type = _key(handle, "levtype", "")
    level = int(_key(handle, "level", 0))
    product = _product(eccodes.codes_get_message(handle))
    return MessageHeader(
        key=FieldKey(
            _remembered(_short_name, handle, product),
            level_type,
            None if level_type == "sfc" else level,
        ),
        type_of_level=_key(handle, "typeOfLevel", "unknown"),
        level=level,
        units=_remembered(_units, handle, product) if units else "",
        mars_class=_key(handle, "class", ""),
        stream=_key(handle, "stream", ""),
        type=_key(handle, "type", ""),
        reference_time=_moment(handle, "dataDate", "dataTime"),
        valid_time=_moment(handle, "validityDate", "validityTime"),
        step=str(_key(handle, "endStep", "0")),
        number=_member(handle),
        shape=(int(_key(handle, "Nj", 0)), int(_key(handle, "Ni", 0))),
        grid_md5=_key(handle, "md5GridSection", ""),
        layout=_layout(handle),
    )


def _layout(handle: Any) -> str:
    grid = str(_key(handle, "gridType", "unknown"))
    if _key(handle, "jPointsAreConsecutive", 0):
        return f"{grid} by columns"
    return f"{grid} to and fro" if _key(handle, "alternativeRowScanning", 0) else grid


def _short_name(handle: Any) -> str:
    name = str(_key(handle, "shortName", "unknown"))
    return name if name not in ("unknown", "~") else f"param{_key(handle, 'paramId', 0)}"


_REMEMBERED: dict[tuple[Callable[[Any], str], bytes], str] = {}
_MOST_REMEMBERED = 4096


def _remembered(concept: Callable[[Any], str], handle: Any, product: bytes | None) -> str:
    """ecCodes searches thousands of definitions for a concept: what it found is kept by product."""
    if product is None:
        return concept(handle)
    if (concept, product) not in _REMEMBERED:
        if len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.clear()
        _REMEMBERED[concept, product] = concept(handle)
    return _REMEMBERED[concept, product]


def _product(message: bytes) -> bytes | None:
    """Everything in a GRIB2 message that decides its name, if its product template is 4.0.

    That is all of sections 0 to 4 but the lengths, the reference time, the grid, and the level
    where it is a single isobaric surface: no definition names those by level.
    """
    if message[7] != 2:
        return None
    found, start = {0: message[4:8]}, 16
    while 4 not in found and start + 5 <= len(message):
        length = int.from_bytes(message[start : start + 4], "big")
        found[message[start + 4]] = message[start : start + length]
        start += max(length, 5)
    product = found.get(4, b"")
    if len(product) < 34 or product[7:9] != b"\0\0":
        return None
    if product[22] == _ISOBARIC and product[28] == _NO_SURFACE:
        product = product[:23] + product[28:]
    when = found.get(1, b"")
    return b"|".join((found[0], when[5:12] + when[19:], found.get(2, b""), product))


_ISOBARIC, _NO_SURFACE = 100, 255  # code table 4.5


def _units(handle: Any) -> str:
    return str(_key(handle, "units", ""))


def _key(handle: Any, name: str, default: Any) -> Any:
    try:
        return eccodes.codes_get(handle, name)
    except eccodes.KeyValueNotFoundError:
        return default


def _member(handle: Any) -> int | None:
    number = _key(handle, "number", None)
    return None if number is None else int(number)


def _moment(handle: Any, date: str, time: str) -> np.datetime64:
    day, clock = int(eccodes.codes_get(handle, date)), int(eccodes.codes_get(handle, time))
    moment = datetime(
        day // 10000, day // 100 % 100, day % 100, clock // 100, clock % 100, tzinfo=UTC
    )
    return np.datetime64(moment.replace(tzinfo=None), "ns")


def decode(handle: Any, where: str) -> Field:
    """Header, axes and values of an open message on a regular latitude-longitude grid."""
    with _refusing(where):
        header = read_header(handle)
    return _decoded(handle, header, where)


def _decoded(handle: Any, header: MessageHeader, where: str) -> Field:
    with _refusing(f"{where} ({header.key})"):
        latitude, longitude = _axes(handle, header, where)
        values, missing = _values(handle, header.key)
        values = values.reshape(latitude.size, longitude.size)
    return Field(header, latitude, longitude, values, missing)


def _axes(
    handle: Any, header: MessageHeader, where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if header.layout != ROWS:
        raise DataError(
            f"grid {header.layout} is not read",
            where=where,
            remedy="give global fields on a regular latitude-longitude grid, row by row",
        )
    rows, columns = header.shape
    south, north = _span(handle, "latitude")
    west, east = _span(handle, "longitude")
    if eccodes.codes_get(handle, "iScansNegatively"):
        east = west - (west - east) % 360.0
    else:
        east = west + (east - west) % 360.0
    return np.linspace(south, north, rows), np.linspace(west, east, columns)


def _span(handle: Any, axis: str) -> tuple[float, float]:
    first = eccodes.codes_get(handle, f"{axis}OfFirstGridPointInDegrees")
    last = eccodes.codes_get(handle, f"{axis}OfLastGridPointInDegrees")
    return float(first), float(last)


def _values(handle: Any, key: FieldKey) -> tuple[NDArray[np.float32], int]:
    """The values in the order of the message, and how many of them are missing."""
    sentinel = SENTINEL if key in _SENTINEL_IS_MISSING else np.inf
    plain = plain_values(handle, sentinel)
    if plain is not None:
        return plain, 0
    values = _values_of_eccodes(handle)
    values[values == sentinel] = np.nan
    return values, int(np.isnan(values).sum())


def _values_of_eccodes(handle: Any) -> NDArray[np.float32]:
    if eccodes.codes_get(handle, "bitmapPresent"):
        eccodes.codes_set(handle, "missingValue", float("nan"))
    try:
        values = eccodes.codes_get_array(handle, "values", ktype=np.float32)
    except eccodes.CodesInternalError:
        values = eccodes.codes_get_values(handle).astype(np.float32)
    return values


# In fields that cannot reach it; a height of 9999 gpm is a value.
_SENTINEL_IS_MISSING = frozenset(
    FieldKey(param, channel.variable.levtype, channel.level_hpa)
    for channel in CHANNELS
    for param in channel.variable.params
    if param != "gh" and not channel.minimum <= SENTINEL <= channel.maximum
)
