"""A made-up planet whose continents lie roughly where the Earth's do, and statistics of its air.

Land and mountains are sums of smooth separable patches with seeded ragged edges; nothing here is
survey data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.harmonics import SphereGrid
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import STANDARD_GRAVITY

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_RAGGED_DEGREE = 80

# Centre latitude, centre longitude, half height, half width: degrees.
_LAND = (
    (52, -105, 18, 25), (65, -112, 9, 45), (38, -97, 11, 19), (25, -102, 9, 7), (15, -89, 4, 5),
    (68, -95, 7, 28), (53, -68, 8, 11), (72, -41, 11, 15), (4, -66, 8, 12), (-7, -57, 11, 18),
    (-21, -57, 12, 12), (-39, -68, 14, 5.5), (22, 8, 14, 23), (9, 14, 8, 27), (-6, 26, 15, 13),
    (-24, 25, 11, 9), (9, 44, 5, 6), (-19, 47, 6, 2.5), (50, 15, 6.5, 17), (41, -4, 4, 5),
    (64, 19, 7, 8), (53, -2.5, 4.5, 3.5), (57, 42, 13, 24), (42, 14, 4, 3), (60, 92, 13, 48),
    (68, 112, 6, 62), (45, 85, 12, 38), (33, 98, 10, 20), (22, 79, 10, 7), (15, 103, 7, 5),
    (27, 111, 8, 9), (42, 122, 9, 9), (24, 47, 10, 9), (34, 57, 8, 13), (39, 35, 3.5, 9),
    (65, 155, 6, 27), (55, 131, 8, 11), (37, 138, 4.5, 3), (0.5, 113, 4.5, 5), (-1, 102, 4.5, 4),
    (-5, 141, 3.5, 8), (-25, 134, 9.5, 18), (-42, 172, 4.5, 3), (-71, 85, 5, 75), (-76, -75, 5, 22),
)  # fmt: skip
# The same with a height in metres.
_MOUNTAINS = (
    (33, 88, 6, 12, 4900), (38, 73, 4, 5, 2600), (-16, -69.5, 9, 3.5, 3300),
    (-33, -70, 8, 2.5, 2600), (1, -76, 8, 3, 1700), (43, -110, 10, 8, 1900), (56, -125, 9, 7, 1100),
    (23, -103, 6, 4, 1700),
    (72, -40, 9, 11, 2500), (9, 39, 5, 3.5, 2000), (-27, 27, 6, 5, 1200), (0, 32, 9, 4, 1100),
    (34, 55, 5, 9, 1300), (48, 97, 6, 10, 1700), (46.5, 10, 1.8, 4.5, 1700), (63, 12, 5, 4, 850),
    (65, 138, 6, 15, 800), (21, 44, 6, 4, 900), (-18, -47, 6, 5, 650), (39, 36, 3, 7, 1200),
    (24, 6, 4, 5, 800), (-81, 85, 11, 75, 3100), (-86, 0, 9, 400, 2300), (-80, -110, 5, 25, 1300),
    (-25, 122, 6, 8, 350), (27, 104, 4, 5, 1400),
)  # fmt: skip


@dataclass(frozen=True)
class Planet:
    """Static fields (latitude, longitude): m2 s-2, land fraction 0..1, soil type 0..6."""

    geopotential_at_surface: Float32
    land_sea_mask: Float32
    soil_type: Float32


def _from(centre: float, degrees: Float64) -> Float64:
    return (degrees - centre + 180.0) % 360.0 - 180.0


def _patches(grid: SphereGrid, rows: Iterable[tuple[float, ...]], sharpness: int) -> Float32:
    """Sum of height * exp(-|dlat|^n) * exp(-|dlon|^n), height 1 where a row gives none."""
    table = list(rows)
    heights = np.array([row[4] if len(row) > 4 else 1.0 for row in table])
    north = [np.abs((grid.latitude - row[0]) / row[2]) ** sharpness for row in table]
    east = [np.abs(_from(row[1], grid.longitude) / row[3]) ** sharpness for row in table]
    return np.asarray((np.exp(-np.array(north)).T * heights) @ np.exp(-np.array(east)), np.float32)


def _ragged(grid: SphereGrid, seed: int, count: int) -> Float32:
    """Random fields (count, latitude, longitude) of unit variance, red at small scales."""
    rng = np.random.default_rng([seed, 31])
    size = min(_RAGGED_DEGREE, grid.degree) + 1
    coefficients = np.zeros((count, grid.degree + 1, grid.degree + 1), np.complex128)
    draw = rng.standard_normal((2, count, _RAGGED_DEGREE + 1, _RAGGED_DEGREE + 1))[
        ..., :size, :size
    ]
    n = np.arange(size)
    spectrum = n / (1.0 + (n / 8.0) ** 3.2)
    share = spectrum / spectrum.sum() / (2 * n + 1)
    coefficients[:, :size, :size] = (draw[0] + 1j * draw[1]) * np.sqrt(share / 2.0)
    return grid.scalar(coefficients)


def planet(grid: SphereGrid, seed: int) -> Planet:
    """The static fields on a grid; the same planet whatever the grid."""
    ragged = _ragged(grid, seed, 3)
    southern_ice = 1.0 / (1.0 + np.exp((grid.latitude[:, None] + 75.0) / 1.2))
    potential = _patches(grid, _LAND, 4) + southern_ice + 0.16 * ragged[0] - 0.42
    land = 1.0 / (1.0 + np.exp(-np.clip(potential / 0.045, -30.0, 30.0)))
    rugged = np.clip(1.0 + 0.3 * ragged[1], 0.2, None)
    lowland = 180.0 * np.clip(1.0 + 0.8 * ragged[2], 0.0, None)
    height = land * (lowland + _patches(grid, _MOUNTAINS, 2) * rugged)
    soil = np.clip(np.floor(2.6 + 1.2 * ragged[2]), 1, 6) * (land > 0.5)
    return Planet(
        geopotential_at_surface=np.asarray(height * STANDARD_GRAVITY, np.float32),
        land_sea_mask=np.asarray(land, np.float32),
        soil_type=np.asarray(soil, np.float32),
    )


def norm_statistics(samples: Iterable[Float32]) -> tuple[Float64, Float64]:
    """Mean and standard deviation of each channel over samples (channel, latitude, longitude).

    Every grid point counts the same, as in the statistics that come with the published weights.
    Returns two arrays (channel,). Raises InputError without samples.
    """
    moments = [
        (field.mean((1, 2), np.float64), np.square(field, dtype=np.float64).mean((1, 2)))
        for field in samples
    ]
    if not moments:
        raise InputError("no samples", remedy="give the fields of at least one time")
    mean, square = np.array(moments).mean(axis=0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))
