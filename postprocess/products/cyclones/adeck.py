"""ATCF a-deck: the comma-separated lines that cyclone centres exchange.

Columns: basin, number, initial time, technique number, technique, lead, latitude and longitude in
tenths, wind in kt, pressure in hPa, type, then wind radii (unknown here). Techniques are MO00,
MO01, ... for the members and MOMN for their mean. The type is XX: on this grid no class is known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from postprocess.products.cyclones.sphere import coordinates_of, unit_vectors

_KNOTS_PER_MS = 3600 / 1852
_BASINS = {"L": "AL", "E": "EP", "C": "CP", "W": "WP", "A": "IO", "B": "IO", "S": "SH", "P": "SH",
           "U": "SH", "Q": "SL"}  # fmt: skip
_TECHNIQUE_NUMBER = "03"  # 03 stands for objective aids
_MEAN = "MOMN"
_LEAST_ALIVE = 0.5  # of the members that had the storm: the mean of fewer is of the survivors only


def adeck_text(table: pd.DataFrame) -> str:
    """The a-deck of a table of tracks: members, then the mean, of each system; '' for none.

    Systems whose number has three digits do not fit the format and are left out.
    """
    lines: list[str] = []
    for system, own in table.groupby("system_id", sort=True):
        number, letter = str(system)[:-1], str(system)[-1:]
        if len(number) > 2 or letter not in _BASINS:
            continue
        storm = (_BASINS[letter], number.rjust(2, "0"))
        for _, track in own.groupby("track_id", sort=True):
            technique = _technique(int(track.number.iloc[0]))
            lines += _lines(storm, technique, track.sort_values("lead_hours"))
        lines += _lines(storm, _MEAN, _mean_track(own))
    return "".join(line + "\n" for line in lines)


def _technique(number: int) -> str:
    return f"MO{number:02d}" if number < 100 else f"M{number:03d}"


def _lines(storm: tuple[str, str], technique: str, track: pd.DataFrame) -> Iterator[str]:
    for point in track.to_dict("records"):
        parts = [
            *storm, f"{point['init_time']:%Y%m%d%H}", _TECHNIQUE_NUMBER, technique,
            f"{point['lead_hours']:3d}", _tenths(point["latitude"], "NS", 3),
            _tenths((point["longitude"] + 180) % 360 - 180, "EW", 4),
            f"{round(point['wind_max_ms'] * _KNOTS_PER_MS):3d}",
            f"{round(point['mslp_pa'] / 100):4d}", "XX", " 34", "NEQ", *["   0"] * 4,
        ]  # fmt: skip
        yield ", ".join(parts) + ","


def _tenths(degrees: float, letters: str, width: int) -> str:
    tenths = round(abs(degrees) * 10)
    return f"{tenths}{letters[0] if degrees >= 0 else letters[1]}".rjust(width + 1)


def _mean_track(system: pd.DataFrame) -> pd.DataFrame:
    """Mean position, wind and pressure at leads where at least half of the members are alive."""
    members = system.number.nunique()
    rows = []
    for lead, points in system.groupby("lead_hours", sort=True):
        if members < 2 or len(points) < _LEAST_ALIVE * members:
            continue
        latitude, longitude = coordinates_of(
            unit_vectors(points.latitude.to_numpy(), points.longitude.to_numpy()).mean(0)
        )
        rows.append(
            {
                "init_time": points.init_time.iloc[0],
                "lead_hours": lead,
                "latitude": float(np.round(latitude, 6)),
                "longitude": float(longitude),
                "wind_max_ms": points.wind_max_ms.mean(),
                "mslp_pa": points.mslp_pa.mean(),
            }
        )
    return pd.DataFrame(rows)
