"""Tropical-cyclone basins and their letters."""

from __future__ import annotations

from itertools import pairwise

# (name, letter, south, north, west, east), first match wins; longitudes 0..360. The letters are
# those of the ids in ECMWF's track messages and in ATCF. The Americas split the Atlantic from the
# eastern Pacific along a line, see `_west_of_america`.
_BOXES = (
    ("north-indian-arabian", "A", 0.0, 60.0, 30.0, 78.0),
    ("north-indian-bengal", "B", 0.0, 60.0, 78.0, 100.0),
    ("north-west-pacific", "W", 0.0, 60.0, 100.0, 180.0),
    ("central-pacific", "C", 0.0, 60.0, 180.0, 220.0),
    ("south-indian", "S", -60.0, 0.0, 20.0, 135.0),
    ("south-pacific", "P", -60.0, 0.0, 135.0, 290.0),
    ("south-atlantic", "Q", -60.0, 0.0, 290.0, 380.0),
)
# Corners (longitude, latitude) of the continental divide from Mexico to Colombia.
_DIVIDE = ((220.0, 60.0), (260.0, 20.0), (268.0, 16.5), (275.0, 12.5), (282.5, 8.5), (290.0, 0.0))


def basin_of(latitude: float, longitude: float) -> tuple[str, str]:
    """Name and letter of the basin of a point in degrees."""
    lon = longitude % 360
    for name, letter, south, north, west, east in _BOXES:
        inside = west <= lon < east or west <= lon + 360 < east
        if inside and (south <= latitude < north):
            return name, letter
    if 220 <= lon < 290 and _west_of_america(latitude, lon):
        return "north-east-pacific", "E"
    return "north-atlantic", "L"


def _west_of_america(latitude: float, longitude: float) -> bool:
    for (west, north), (east, south) in pairwise(_DIVIDE):
        if west <= longitude < east:
            share = (longitude - west) / (east - west)
            return latitude < north + share * (south - north)
    return False
