"""The regions that scores are told for, and the weights of their grid points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights


@dataclass(frozen=True)
class Region:
    """A box, bounds in degrees and inclusive; `west` > `east` would cross Greenwich, as Europe."""

    name: str
    long_name: str
    south: float
    north: float
    west: float = 0.0
    east: float = 360.0


REGIONS = (
    Region("global", "Globe", -90, 90),
    Region("northern-extratropics", "Northern extratropics, 20-90N", 20, 90),
    Region("tropics", "Tropics, 20S-20N", -20, 20),
    Region("southern-extratropics", "Southern extratropics, 20-90S", -90, -20),
    Region("europe", "Europe, 35-75N 12.5W-42.5E", 35, 75, 347.5, 42.5),
)
"""The boxes of WeatherBench 2, so that figures compare."""


def region(name: str) -> Region:
    """The region of that name; InputError lists those there are."""
    found = {each.name: each for each in REGIONS}
    if name not in found:
        raise InputError(f"unknown region {name!r}", remedy=f"choose from {', '.join(found)}")
    return found[name]


def region_weights() -> NDArray[np.float64]:
    """(region, latitude x longitude): area of each point, zero outside the region."""
    return np.stack([_weights(each).ravel() for each in REGIONS])


def _weights(box: Region) -> NDArray[np.float64]:
    rows = (box.south <= LATITUDE) & (box.north >= LATITUDE)
    if box.west <= box.east:
        columns = (box.west <= LONGITUDE) & (box.east >= LONGITUDE)
    else:
        columns = (box.west <= LONGITUDE) | (box.east >= LONGITUDE)
    return np.outer(area_weights(LATITUDE) * rows, columns)
