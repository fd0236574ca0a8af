"""Fields regridded as they are decoded, into one array in the model's order of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ingest.decode import Field
from ingest.index import GRIB_UNITS, FieldKey, channel_key
from ingest.regrid import ConservativeRegridder
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, STANDARD_GRAVITY
from mosaic_core.contract.variables import CHANNELS, Channel

_CHANNEL_OF = {
    channel_key(channel, param): (index, channel)
    for index, channel in enumerate(CHANNELS)
    for param in channel.variable.params
}
_FETCH_AGAIN = "delete the folder and fetch again, or take another source"


def analysis_planes(
    fields: Iterable[Field], valid_time: np.datetime64, where: str
) -> NDArray[np.float32]:
    """The 82 channels on the 1.5 degree grid, float32 (channel, latitude, longitude), SI units.

    One field is held at a time; fields that the model does not use are passed over. Raises
    DataError for a field that is missing, doubled, of another time or unit (where its header says
    one), or has values that are missing or not finite.
    """
    target = np.full((len(CHANNELS), LATITUDE.size, LONGITUDE.size), np.nan, np.float32)
    filled: dict[FieldKey, int] = {}
    for index, key, plane in _regridded(fields, valid_time, where):
        if key in filled:
            raise DataError(f"{key} is there twice", where=where, remedy=_FETCH_AGAIN)
        if index in filled.values() and key.param == "gh":
            continue
        filled[key] = index
        target[index] = plane
    _require_all(filled, where)
    _require_numbers(target, where)
    return target


def channel_of(key: FieldKey) -> Channel | None:
    """The channel that a field of that key carries, if any."""
    place = _CHANNEL_OF.get(key)
    return place[1] if place else None


def _regridded(
    fields: Iterable[Field], valid_time: np.datetime64, where: str
) -> Iterator[tuple[int, FieldKey, NDArray[np.floating]]]:
    regridders = RegridderCache()
    for field in fields:
        place = _CHANNEL_OF.get(field.header.key)
        if place is not None:
            index, channel = place
            _require_identity(field, channel, valid_time, where)
            values = field.values
            if field.header.key.param == "gh":
                values = values * np.float32(STANDARD_GRAVITY)
            yield index, field.header.key, regridders.of(field)(values)


class RegridderCache:
    """One regridder for each grid met."""

    def __init__(self) -> None:
        self._by_axes: dict[bytes, ConservativeRegridder] = {}

    def of(self, field: Field) -> ConservativeRegridder:
        """The regridder from the field's own axes to the model's grid."""
        axes = field.latitude.tobytes() + field.longitude.tobytes()
        if axes not in self._by_axes:
            self._by_axes[axes] = ConservativeRegridder(field.latitude, field.longitude)
        return self._by_axes[axes]


def _require_identity(
    field: Field, channel: Channel, valid_time: np.datetime64, where: str
) -> None:
    header = field.header
    expected_units = GRIB_UNITS[header.key.param]
    faults = []
    if header.units not in ("", expected_units):
        faults.append(f"units are {header.units}, expected {expected_units}")
    if header.valid_time != valid_time:
        faults.append(f"valid at {header.valid_time}, expected {valid_time}")
    if field.missing:
        faults.append(f"{field.missing} of {field.values.size} values are missing")
    if faults:
        raise DataError("; ".join(faults), where=f"{where} {channel.name}", remedy=_FETCH_AGAIN)


def _require_all(filled: Mapping[FieldKey, int], where: str) -> None:
    there = set(filled.values())
    missing = [channel.name for index, channel in enumerate(CHANNELS) if index not in there]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(CHANNELS)} fields are missing: {', '.join(missing)}",
            where=where,
            remedy=_FETCH_AGAIN,
        )


def _require_numbers(target: NDArray[np.float32], where: str) -> None:
    damaged = [
        channel.name
        for channel, plane in zip(CHANNELS, target, strict=True)
        if not np.isfinite(plane).all()
    ]
    if damaged:
        raise DataError(
            f"values that are not finite in {', '.join(damaged)}", where=where, remedy=_FETCH_AGAIN
        )
