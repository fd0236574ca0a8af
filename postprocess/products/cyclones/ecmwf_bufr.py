"""ECMWF's own cyclone tracks (`type=tf`, BUFR): the storms that exist, and a second opinion.

One message a storm, one subset a member. After the observed position each forecast time carries
the centre (latitude, longitude, pressure) and the place and speed of the strongest 10 m wind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.cyclones.identity import FIRST_NUMBER, KnownStorm

ECMWF_COLUMNS: Mapping[str, str] = {
    "storm_id": "str",
    "storm_name": "str",
    "init_time": "datetime64[ns]",
    "number": "int64",
    "lead_hours": "int64",
    "latitude": "float64",
    "longitude": "float64",
    "mslp_pa": "float64",
    "wind_max_ms": "float64",
    "wind_max_latitude": "float64",
    "wind_max_longitude": "float64",
}
"""Longitudes as in the message, -180..180. Members 51 and 52 of the ensemble are the control and
the high-resolution forecast."""

_MISSING_LONG = 2147483647
_MISSING_DOUBLE = -1e99  # anything below is ecCodes' missing value, -1e100


@dataclass(frozen=True)
class _Message:
    """One decoded storm: its identity, where it was observed, and its table."""

    storm: KnownStorm
    table: pd.DataFrame


def read_ecmwf_tracks(path: Path, cycle: Cycle | None = None) -> pd.DataFrame:
    """Every valid centre of every storm and member: ECMWF_COLUMNS, by storm, lead and member.

    DataError when the file is truncated, is not BUFR, or is of another cycle than `cycle`;
    InputError when it is absent.
    """
    tables = [message.table for message in _messages(path, cycle)]
    return pd.concat(tables, ignore_index=True).astype(dict(ECMWF_COLUMNS))


def known_storms(path: Path, cycle: Cycle | None = None) -> list[KnownStorm]:
    """Storms with an agency's number and an observed position at the initial time.

    ECMWF's own numbers (70 and above) are no agency's and are left out. Same errors as
    `read_ecmwf_tracks`.
    """
    storms = [message.storm for message in _messages(path, cycle)]
    return [storm for storm in storms if _is_official(storm) and np.isfinite(storm.latitude)]


def _is_official(storm: KnownStorm) -> bool:
    digits = "".join(letter for letter in storm.storm_id if letter.isdigit())
    return bool(digits) and int(digits) < FIRST_NUMBER


def _messages(path: Path, cycle: Cycle | None) -> Iterator[_Message]:
    import eccodes

    if not path.exists():
        raise InputError(
            "no track file",
            where=str(path),
            remedy="without a storm anywhere ECMWF publishes none: go on without it",
        )
    count = 0
    with path.open("rb") as file:
        try:
            while (handle := eccodes.codes_bufr_new_from_file(file)) is not None:
                try:
                    eccodes.codes_set(handle, "unpack", 1)
                    yield _decode(_Keys(eccodes, handle), path, cycle)
                    count += 1
                finally:
                    eccodes.codes_release(handle)
        except eccodes.CodesInternalError as error:
            raise DataError(
                f"not a whole BUFR file: {error}", where=str(path), remedy="fetch it again"
            ) from error
    if count == 0:
        raise DataError("no BUFR message", where=str(path), remedy="fetch it again")


class _Keys:
    """Arrays of one unpacked message by key, one value a subset, missing values as NaN."""

    def __init__(self, eccodes: Any, handle: Any) -> None:
        self._eccodes, self._handle = eccodes, handle
        self.subsets = int(eccodes.codes_get(handle, "numberOfSubsets"))

    def text(self, key: str) -> str:
        """A text key without blanks around it."""
        return str(self._eccodes.codes_get(self._handle, key)).strip()

    def count(self, key: str) -> int:
        """How many times a key occurs (#1#key ... #n#key)."""
        rank = 0
        while self._eccodes.codes_is_defined(self._handle, f"#{rank + 1}#{key}"):
            rank += 1
        return rank

    def values(self, key: str) -> NDArray[np.float64]:
        """One float a subset."""
        found = np.asarray(self._eccodes.codes_get_array(self._handle, key), dtype=np.float64)
        found = np.where((found == _MISSING_LONG) | (found < _MISSING_DOUBLE), np.nan, found)
        return np.broadcast_to(found, (self.subsets,)) if found.size == 1 else found


def _decode(keys: _Keys, path: Path, cycle: Cycle | None) -> _Message:
    hour = [int(keys.values(part)[0]) for part in ("year", "month", "day", "hour")]
    found = Cycle.parse("{:04d}{:02d}{:02d}{:02d}".format(*hour))
    if cycle is not None and found != cycle:
        raise DataError(
            f"the tracks are of cycle {found}, not of {cycle}",
            where=str(path),
            remedy="fetch the track file of the same cycle",
        )
    identity = keys.text("stormIdentifier"), keys.text("longStormName")
    position = float(keys.values("#1#latitude")[0]), float(keys.values("#1#longitude")[0])
    steps = [_step(keys, rank) for rank in range(keys.count("timePeriod") + 1)]
    table = pd.concat(steps, ignore_index=True).dropna(subset=["latitude", "longitude"])
    table = table.assign(storm_id=identity[0], storm_name=identity[1], init_time=found.init_time)[
        list(ECMWF_COLUMNS)
    ]
    return _Message(KnownStorm(*identity, *position), table)


def _step(keys: _Keys, rank: int) -> pd.DataFrame:
    """The members at one forecast time; rank 0 is the analysis.

    Positions come in pairs after the observed one: the centre, then the strongest wind. Subsets
    whose track has ended have no timePeriod: the others say which lead it is.
    """
    hours = keys.values(f"#{rank}#timePeriod") if rank else np.zeros(1)
    lead = hours[np.isfinite(hours)]
    centre, windiest = 2 * rank + 2, 2 * rank + 3
    return pd.DataFrame(
        {
            "number": keys.values("ensembleMemberNumber").astype(np.int64),
            "lead_hours": int(lead[0]) if lead.size else -1,
            "latitude": keys.values(f"#{centre}#latitude"),
            "longitude": keys.values(f"#{centre}#longitude"),
            "mslp_pa": keys.values(f"#{rank + 1}#pressureReducedToMeanSeaLevel"),
            "wind_max_ms": keys.values(f"#{rank + 1}#windSpeedAt10M"),
            "wind_max_latitude": keys.values(f"#{windiest}#latitude"),
            "wind_max_longitude": keys.values(f"#{windiest}#longitude"),
        }
    )
