"""The versioned table of tracker thresholds, each with its reason.

All intensities are grid-scale values at 1.5 degrees: inner cores are not resolved, and winds and
depths are far weaker than a best track's. A change of any number is a new version, and the old ones
stay, so that a season can be tracked again as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TRACKER_VERSION = "1"  # the newest of TRACKER_VERSIONS
INTENSITY_NOTE = "grid-scale intensity at 1.5 degrees, not a best-track intensity"


@dataclass(frozen=True)
class Thresholds:
    """Numbers of the tracker; distances in degrees of arc unless the name says km."""

    version: str = TRACKER_VERSION

    # Candidates. 200 Pa and 5.5 degrees: Ullrich et al. (2021). Continuing a track, 150 Pa: weak
    # phases drop out at 200 Pa on this grid.
    contour_pa: float = 200.0
    continuing_contour_pa: float = 150.0
    contour_distance: float = 5.5
    max_abs_latitude: float = 60.0
    merge_distance: float = 5.0
    # Warm core: thickness z300 - z500 falls by 6 m (m2 s-2 here) around its maximum. The maximum is
    # sought within 2.5 degrees: the reference's 1.0 is less than one cell and loses storms.
    warm_core_fall: float = 58.8
    warm_core_distance: float = 6.5
    warm_core_search: float = 2.5
    # Evidence around the centre: 2.5 degrees hold the vortex, 3 degrees (333 km) its wind maximum.
    vorticity_distance: float = 2.5
    wind_distance: float = 3.0
    # Linking: 5.5 degrees in 6 h is 28 m/s from rest, for the first link; with a known motion the
    # gate is for its change. 12 degrees at most, for models that step 24 h.
    first_gate_per_6h: float = 5.5
    later_gate_share: float = 0.6
    widest_gate: float = 12.0
    gap_hours: int = 24
    cold_hours: int = 24
    # Genesis tracks: the common floor of 2 days and 10 m/s at four points; formation poleward of
    # 35 degrees is extratropical in nearly all best-track records.
    genesis_hours: int = 48
    genesis_max_abs_latitude: float = 35.0
    genesis_wind_ms: float = 10.0
    genesis_wind_points: int = 4
    highest_land_share: float = 0.5
    # Storms that an agency has named: within 300 km of the reported position, or 500 km when no
    # other storm competes in the basin.
    known_km: float = 300.0
    lonely_known_km: float = 500.0
    # Members show the same genesis when their tracks are within 500 km over four common times.
    same_system_km: float = 500.0
    same_system_points: int = 4


TRACKER_VERSIONS: Mapping[str, Thresholds] = {table.version: table for table in (Thresholds(),)}
DEFAULT_THRESHOLDS = TRACKER_VERSIONS[TRACKER_VERSION]
