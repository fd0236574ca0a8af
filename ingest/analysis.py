"""From fetched GRIB messages to one analysis on the model's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ingest.decode import Field, read_messages
from ingest.fetch import DATA
from ingest.index import FieldKey, channel_key
from ingest.regrid import ConservativeRegridder
from ingest.sources import ATTRIBUTION
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, STANDARD_GRAVITY
from mosaic_core.contract.schema import ANALYSIS, channels_to_dataset
from mosaic_core.contract.variables import CHANNELS, VARIABLES, Channel

# ecCodes writes powers as `**`; geopotential height comes in geopotential metres.
_GRIB_UNITS = {
    param: variable.units.replace("m2", "m**2").replace("s-", "s**-").replace("kg-", "kg**-")
    for variable in VARIABLES
    for param in variable.params
} | {"gh": "gpm"}
_CHANNEL_OF = {
    channel_key(channel, param): (index, channel)
    for index, channel in enumerate(CHANNELS)
    for param in channel.variable.params
}
_FETCH_AGAIN = "delete the folder and fetch again, or take another source"


def build_analysis(manifest: FetchManifest, directory: Path, *, step: int = 0) -> xr.Dataset:
    """The analysis in `directory` on the 1.5 degree grid: ANALYSIS schema, one time.

    `step` says that the files hold a forecast of so many hours; the time is the valid time.
    Attributes carry the provenance. Raises DataError for damaged, missing, doubled, foreign or
    NaN fields.
    """
    cycle = Cycle.parse(manifest.cycle)
    path = directory / DATA
    dataset = analysis_from_fields(
        read_messages(path), cycle.init_time + np.timedelta64(step, "h"), str(path)
    )
    return dataset.assign_attrs(_provenance(manifest, step))


def _provenance(manifest: FetchManifest, step: int) -> dict[str, str | int]:
    record: dict[str, str | int] = {
        "source": manifest.source,
        "era": manifest.era,
        "cycle": manifest.cycle,
        "step": step,
        "data_url": manifest.data_url,
        "etag": manifest.etag or "",
        "last_modified": manifest.last_modified or "",
        "fetched_at": manifest.fetched_at.isoformat(),
        "first_seen": manifest.first_seen.isoformat() if manifest.first_seen else "",
        "grib_sha256": next(file.sha256 for file in manifest.files if file.name == DATA),
        "attribution": ATTRIBUTION,
    }
    return {key: value for key, value in record.items() if value != ""}


def analysis_from_fields(
    fields: Iterable[Field], valid_time: np.datetime64, where: str
) -> xr.Dataset:
    """Regrid fields as they come and put them into one ANALYSIS dataset of `valid_time`.

    Fields that the model does not use are passed over. Raises DataError naming every fault.
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
    dataset = channels_to_dataset(target[np.newaxis], {"time": [valid_time]})
    return ANALYSIS.validate(dataset, where=where)


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
    expected_units = _GRIB_UNITS[header.key.param]
    faults = []
    if header.units != expected_units:
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
