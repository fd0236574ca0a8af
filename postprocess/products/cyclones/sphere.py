"""Distances on the sphere, in degrees of arc and in kilometres."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mosaic_core.contract.grid import EARTH_RADIUS_M

KM_PER_DEGREE = math.pi / 180 * EARTH_RADIUS_M / 1000


def distance_degrees(
    latitude_a: ArrayLike, longitude_a: ArrayLike, latitude_b: ArrayLike, longitude_b: ArrayLike
) -> NDArray[np.float64]:
    """Great-circle distance in degrees (haversine, accurate for small distances); broadcasts."""
    lat_a, lon_a, lat_b, lon_b = map(np.deg2rad, (latitude_a, longitude_a, latitude_b, longitude_b))
    half = np.sin((lat_b - lat_a) / 2) ** 2
    half = half + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return np.asarray(np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))))


def distance_km(
    latitude_a: ArrayLike, longitude_a: ArrayLike, latitude_b: ArrayLike, longitude_b: ArrayLike
) -> NDArray[np.float64]:
    """Great-circle distance in km on the sphere of the IFS; broadcasts."""
    return distance_degrees(latitude_a, longitude_a, latitude_b, longitude_b) * KM_PER_DEGREE


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
    """Points (...,) in degrees as unit vectors (..., 3)."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def coordinates_of(vectors: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Latitude and longitude (0..360) in degrees of vectors (..., 3) of any length."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x)) % 360


@lru_cache(maxsize=64)
def cosine_limit(degrees: float) -> float:
    """The smallest cosine whose arc, computed as 180 / pi * acos, is at most `degrees`.

    Comparing cosines against it decides as the arc itself would, without a call of acos a point.
    """
    if degrees >= 180:
        return -math.inf
    limit = math.cos(math.radians(degrees))
    while 180 / math.pi * math.acos(limit) > degrees:
        limit = math.nextafter(limit, 2.0)
    while 180 / math.pi * math.acos(math.nextafter(limit, -2.0)) <= degrees:
        limit = math.nextafter(limit, -2.0)
    return limit
