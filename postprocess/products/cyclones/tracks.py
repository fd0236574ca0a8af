"""From linked centres to the table of tracks: which are kept, what they are called.

The table has one row per member, track and lead; `TRACK_COLUMNS` is its schema at every door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mosaic_core.contract.errors import DataError
from postprocess.products.cyclones.basins import basin_of
from postprocess.products.cyclones.centres import Centres
from postprocess.products.cyclones.linking import Track
from postprocess.products.cyclones.thresholds import Thresholds

TRACK_COLUMNS: Mapping[str, str] = {
    "track_id": "str",
    "system_id": "str",
    "storm_id": "str",
    "storm_name": "str",
    "category": "str",
    "basin": "str",
    "number": "int64",
    "init_time": "datetime64[ns]",
    "lead_hours": "int64",
    "time": "datetime64[ns]",
    "latitude": "float64",
    "longitude": "float64",
    "mslp_pa": "float64",
    "mslp_grid_pa": "float64",
    "wind_max_ms": "float64",
    "wind_max_latitude": "float64",
    "wind_max_longitude": "float64",
    "vorticity_850": "float64",
    "warm_core": "bool",
    "closed_contour": "bool",
    "tracker_version": "str",
}
"""Columns and types. `category` is existing (there at lead 0) or genesis; `closed_contour` says
whether the 200 Pa contour closes; vorticity (s-1) is positive for cyclonic rotation. storm_id and
storm_name are empty unless an agency had named the storm."""


def empty_tracks() -> pd.DataFrame:
    """A table of no tracks, with every column and type."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TRACK_COLUMNS.items()})


def validate_tracks(table: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """The table with its columns in order; DataError lists every missing, extra or mistyped one."""
    faults = [f"{name}: missing" for name in TRACK_COLUMNS if name not in table]
    faults += [f"{name}: not a column of tracks" for name in table if name not in TRACK_COLUMNS]
    for name, kind in TRACK_COLUMNS.items():
        if name in table and not _is_kind(table[name], kind):
            faults.append(f"{name}: dtype is {table[name].dtype}, expected {kind}")
    if not faults and len(table):
        faults += _impossible(table)
    if faults:
        raise DataError("not a table of tracks:\n  - " + "\n  - ".join(faults), where=where)
    return table[list(TRACK_COLUMNS)]


def _is_kind(column: pd.Series, kind: str) -> bool:
    if kind == "str":
        return bool(pd.api.types.is_string_dtype(column)) or column.dtype == object
    if kind.startswith("datetime64"):
        return bool(pd.api.types.is_datetime64_any_dtype(column))
    return bool(column.dtype == np.dtype(kind))


def _impossible(table: pd.DataFrame) -> list[str]:
    faults = []
    if not table.latitude.between(-90, 90).all():
        faults.append("latitude: outside -90..90")
    if not table.longitude.between(0, 360, inclusive="left").all():
        faults.append("longitude: outside 0..360")
    if not table.mslp_pa.between(80_000, 110_000).all():
        faults.append("mslp_pa: outside 80000..110000, is it in hPa?")
    if table.duplicated(["track_id", "lead_hours"]).any():
        faults.append("lead_hours: twice in one track")
    return faults


@dataclass(frozen=True)
class Run:
    """What a table says of its forecast: initial time, lead hours and centres of every lead."""

    init_time: np.datetime64
    centres: Mapping[int, Centres]


def kept(track: Track, run: Run, t: Thresholds) -> bool:
    """Whether a track is published.

    Tracks from lead 0 need one windy point: they are in the analysis. Later ones must be born in
    the tropics over sea, live long enough and be windy at several points.
    """
    lead, entry = track.leads[0], track.entries[0]
    centres = run.centres[lead]
    over_sea = not bool(centres.land[entry])
    tropical = abs(centres.latitude[entry]) <= t.genesis_max_abs_latitude
    winds = np.array(
        [run.centres[h].wind[e] for h, e in zip(track.leads, track.entries, strict=True)]
    )
    windy = int((winds >= t.genesis_wind_ms).sum())
    if lead == 0:
        return bool(over_sea and tropical and winds[0] >= t.genesis_wind_ms)
    long_enough = track.leads[-1] - lead >= t.genesis_hours
    return bool(over_sea and tropical and long_enough and windy >= t.genesis_wind_points)


def tracks_table(tracks: Mapping[int, Sequence[Track]], run: Run, t: Thresholds) -> pd.DataFrame:
    """The table of the kept tracks of every member (by number), without system ids."""
    rows = [
        _rows(f"{number:02d}-{order:03d}", number, track, run).assign(tracker_version=t.version)
        for number, own in sorted(tracks.items())
        for order, track in enumerate(track for track in own if kept(track, run, t))
    ]
    if not rows:
        return empty_tracks()
    return pd.concat(rows, ignore_index=True)[list(TRACK_COLUMNS)].astype(dict(TRACK_COLUMNS))


def _rows(track_id: str, number: int, track: Track, run: Run) -> pd.DataFrame:
    name, _ = basin_of(*track.positions[0])
    points = [
        _point(run.centres[lead], entry)
        for lead, entry in zip(track.leads, track.entries, strict=True)
    ]
    table = pd.DataFrame(points)
    leads = np.array(track.leads)
    table["lead_hours"] = leads
    start = run.init_time.astype("datetime64[ns]")
    table["time"] = start + leads.astype("timedelta64[h]").astype("timedelta64[ns]")
    return table.assign(
        track_id=track_id, system_id="", storm_id="", storm_name="", number=number, basin=name,
        init_time=start, category="existing" if track.leads[0] == 0 else "genesis",
    )  # fmt: skip


def _point(centres: Centres, entry: int) -> dict[str, float | bool]:
    return {
        "latitude": centres.latitude[entry],
        "longitude": centres.longitude[entry],
        "mslp_pa": centres.pressure[entry],
        "mslp_grid_pa": centres.grid_pressure[entry],
        "wind_max_ms": centres.wind[entry],
        "wind_max_latitude": centres.wind_latitude[entry],
        "wind_max_longitude": centres.wind_longitude[entry] % 360,
        "vorticity_850": centres.vorticity[entry],
        "warm_core": bool(centres.warm[entry]),
        "closed_contour": bool(centres.strong[entry]),
    }
