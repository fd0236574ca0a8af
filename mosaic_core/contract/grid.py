"""The two grids: ECMWF's 0.25 degree open data, and the model's 1.5 degrees with poles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NATIVE_LATITUDE_COUNT = 721
NATIVE_LONGITUDE_COUNT = 1440
NATIVE_SPACING_DEGREES = 0.25

SPACING_DEGREES = 1.5
LATITUDE: NDArray[np.float64] = np.linspace(-90.0, 90.0, 121, dtype=np.float64)
LONGITUDE: NDArray[np.float64] = np.arange(0.0, 360.0, SPACING_DEGREES, dtype=np.float64)
LATITUDE.flags.writeable = False
LONGITUDE.flags.writeable = False

EARTH_RADIUS_M = 6_371_229.0  # GRIB2 shape of the earth 6, the sphere of the IFS
STANDARD_GRAVITY = 9.80665  # m s-2, gh (gpm) to geopotential (m2 s-2)


def latitude_bounds(latitude: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cell bounds in degrees, (n + 1,): midpoints, the outermost exactly at the poles.

    `latitude` is (n,) in degrees, strictly monotonic in either direction.
    """
    rows = np.asarray(latitude, dtype=np.float64)
    middles = (rows[:-1] + rows[1:]) / 2
    pole = 90.0 if rows[-1] > rows[0] else -90.0
    return np.concatenate([[-pole], middles, [pole]])


def area_weights(latitude: NDArray[np.floating]) -> NDArray[np.float64]:
    """Area of each row relative to the mean row, (n,), mean 1 (as WeatherBench 2 has it)."""
    sines = np.sin(np.deg2rad(latitude_bounds(latitude)))
    area = np.abs(np.diff(sines))
    return area / area.mean()
