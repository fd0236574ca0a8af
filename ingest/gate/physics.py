"""Checks between fields: do they belong to one atmosphere, the right way round?

Correlations are weighted by area, without the mean, over the stated latitudes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.gate.reference import Plane, Planes
from ingest.gate.verdict import Finding, Limits
from mosaic_core.contract.grid import EARTH_RADIUS_M, LATITUDE, LONGITUDE, area_weights
from mosaic_core.contract.variables import LEVELS, VARIABLES

_GAS_CONSTANT = 287.06  # J kg-1 K-1, dry air
_VIRTUAL = 0.608  # Tv = T (1 + 0.608 q)
_ROTATION = 7.292e-5  # s-1
_AREA = area_weights(LATITUDE)[:, None] * np.ones(LONGITUDE.size)
_RADIANS = np.deg2rad(LATITUDE)[:, None]
_STEP = np.deg2rad(LATITUDE[1] - LATITUDE[0])
_SURFACE_PAIRS = (
    ("2m_temperature", "temperature_1000", Limits(0.9, 0.75, "0.95 and more in any season")),
    ("10m_u_component_of_wind", "u_component_of_wind_1000", Limits(0.8, 0.6, "0.95 is usual")),
    ("10m_v_component_of_wind", "v_component_of_wind_1000", Limits(0.8, 0.6, "0.95 is usual")),
    ("mean_sea_level_pressure", "geopotential_1000", Limits(0.95, 0.85, "0.99 is usual")),
)  # fmt: skip
_GEOSTROPHIC = Limits(0.75, 0.5, "0.9 is usual between 25 and 70 degrees; swapped winds give 0")
# ERA5 gives 1.75 K for 500-850 hPa at once; the layers below are a fifth to a half as deep.
_HYDROSTATIC = Limits(2.5, 4.0, "K; the trapezoidal rule over one layer errs by up to 1.5")
_HYDROSTATIC_TOP = Limits(4.5, 7.0, "K; the cold point lies inside this layer: up to 3")
_ORDER = Limits(1.0, 0.9, "levels as they are give 1.28 and more, two exchanged below 0.8")
_ORDER_FROM = {"temperature": 200, "specific_humidity": 150}
_CONTINUITY = Limits(0.45, 0.2, "0.6 to 0.9 is usual; upward-positive velocity gives below 0")
_SATURATION = Limits(0.01, 0.03, "area share above 120 % humidity; 0.001 is usual")
_GEOSTROPHIC_LEVELS = (200, 300, 500, 700, 850)
_MOIST_LEVELS = (300, 400, 500, 600, 700, 850, 925, 1000)


def between_fields(planes: Planes) -> Iterator[Finding]:
    """Every check whose fields are there."""
    yield from surface_agreement(planes)
    yield from geostrophy(planes)
    yield from hydrostasy(planes)
    yield from saturation(planes)
    yield from level_order(planes)
    yield from continuity(planes)


def _has(planes: Planes, *names: str) -> bool:
    return all(name in planes for name in names)


def correlation(a: Plane, b: Plane, weights: NDArray[np.float64] = _AREA) -> float:
    """Weighted correlation of two fields about their weighted means; 0 where one is constant."""
    total = weights.sum()
    x = a - (weights * a).sum() / total
    y = b - (weights * b).sum() / total
    norm = np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    return float((weights * x * y).sum() / norm) if norm > 0 else 0.0


def _band(south: float, north: float) -> NDArray[np.float64]:
    """Area weights between two latitudes of both hemispheres."""
    inside = (np.abs(LATITUDE) >= south) & (np.abs(LATITUDE) <= north)
    return _AREA * inside[:, None]


def surface_agreement(planes: Planes) -> Iterator[Finding]:
    """The surface fields resemble those at 1000 hPa."""
    for surface, lowest, limits in _SURFACE_PAIRS:
        if _has(planes, surface, lowest):
            value = correlation(planes[surface], planes[lowest])
            yield limits.judge("agrees with 1000 hPa", surface, value)


def northward(field: Plane) -> NDArray[np.float64]:
    """Derivative to the north in 1/m on the unit of the field."""
    return np.gradient(np.asarray(field, np.float64), _STEP, axis=0) / EARTH_RADIUS_M


def eastward(field: Plane) -> NDArray[np.float64]:
    """Derivative to the east, as `northward`; 0 at the poles."""
    wide = np.asarray(field, np.float64)
    slope = (np.roll(wide, -1, axis=1) - np.roll(wide, 1, axis=1)) / (2 * _STEP)
    cosine = np.cos(_RADIANS)
    return np.where(cosine > 1e-6, slope / np.maximum(cosine, 1e-6), 0.0) / EARTH_RADIUS_M


def geostrophy(planes: Planes) -> Iterator[Finding]:
    """Wind follows the slope of geopotential: u ~ -dz/dy / f, v ~ dz/dx / f."""
    weights = _band(25.0, 70.0)
    coriolis = 2 * _ROTATION * np.sin(_RADIANS)
    safe = np.where(np.abs(coriolis) > 1e-6, coriolis, 1.0)
    for level in _GEOSTROPHIC_LEVELS:
        u, v = f"u_component_of_wind_{level}", f"v_component_of_wind_{level}"
        if _has(planes, u, v, f"geopotential_{level}"):
            height = planes[f"geopotential_{level}"]
            east, north = -northward(height) / safe, eastward(height) / safe
            yield _GEOSTROPHIC.judge("geostrophic", u, correlation(planes[u], east, weights))
            yield _GEOSTROPHIC.judge("geostrophic", v, correlation(planes[v], north, weights))


def hydrostasy(planes: Planes) -> Iterator[Finding]:
    """Thickness of a layer against its mean virtual temperature: the rms difference in K."""
    for upper, lower in pairwise(LEVELS):
        names = [f"{name}_{level}" for name in ("geopotential", "temperature", "specific_humidity")
                 for level in (upper, lower)]  # fmt: skip
        if _has(planes, *names):
            above, below, *rest = (planes[name].astype(np.float64) for name in names)
            virtual = [rest[i] * (1 + _VIRTUAL * rest[i + 2]) for i in (0, 1)]
            thickness = (above - below) / (_GAS_CONSTANT * np.log(lower / upper))
            error = thickness - (virtual[0] + virtual[1]) / 2
            rms = float(np.sqrt((_AREA * error**2).mean()))
            limits = _HYDROSTATIC_TOP if upper == LEVELS[0] else _HYDROSTATIC
            yield limits.judge("hydrostatic", f"layer {upper}-{lower} hPa", rms)


def saturation(planes: Planes) -> Iterator[Finding]:
    """Specific humidity against its saturation over water (Bolton 1980, eq. 10)."""
    for level in _MOIST_LEVELS:
        q, t = f"specific_humidity_{level}", f"temperature_{level}"
        if _has(planes, q, t):
            celsius = np.clip(planes[t].astype(np.float64) - 273.15, -120.0, 60.0)
            vapour = 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))
            limit = 0.622 * vapour / np.maximum(level * 100.0 - 0.378 * vapour, 1.0)
            share = float((_AREA * (planes[q] > 1.2 * limit)).mean())
            yield _SATURATION.judge("supersaturated", q, share)


def level_order(planes: Planes) -> Iterator[Finding]:
    """Levels stand in the order in which neighbours are the most alike.

    The value is the least ratio, over every exchange of two levels, of the distances to their
    neighbours after the exchange to those before; below 1 the exchanged order is the better one.
    Left out are the levels where the profile turns: temperature and humidity around the
    tropopause and above.
    """
    for variable in VARIABLES:
        levels = tuple(level for level in LEVELS if level >= _ORDER_FROM.get(variable.name, 50))
        names = [f"{variable.name}_{level}" for level in levels]
        if variable.on_levels and _has(planes, *names):
            distance = _distances([planes[name] for name in names], variable.name)
            ratio, first, second = _best_exchange(distance)
            subject = f"{variable.name}: {levels[first]} and {levels[second]} hPa"
            yield _ORDER.judge("levels in order", subject, ratio)


def _distances(levels: list[Plane], name: str) -> NDArray[np.float64]:
    """Root mean square difference of every two levels, in units of their spread."""
    fields = [field[::2, ::2].astype(np.float64) for field in levels]
    if name == "specific_humidity":
        fields = [np.log(np.maximum(field, 1e-8)) for field in fields]
    spreads = [max(float(field.std()), 1e-30) for field in fields]
    distance = np.zeros((len(fields), len(fields)))
    for i, j in combinations(range(len(fields)), 2):
        apart = float(np.sqrt(((fields[i] - fields[j]) ** 2).mean()))
        distance[i, j] = distance[j, i] = apart / np.sqrt(spreads[i] * spreads[j])
    return distance


def _best_exchange(distance: NDArray[np.float64]) -> tuple[float, int, int]:
    count = len(distance)
    best = (float("inf"), 0, 0)
    for i, j in combinations(range(count), 2):
        order = list(range(count))
        order[i], order[j] = j, i
        links = [(a, b) for a, b in pairwise(range(count)) if {a, b} & {i, j}]
        before = sum(distance[a, b] for a, b in links)
        after = sum(distance[order[a], order[b]] for a, b in links)
        best = min(best, (float(after / max(before, 1e-30)), i, j))
    return best


def continuity(planes: Planes) -> Iterator[Finding]:
    """Omega against minus the divergence of the wind summed from the top, 400 to 850 hPa."""
    names = [f"{name}_component_of_wind_{level}" for level in LEVELS for name in ("u", "v")]
    if not _has(planes, *names, "vertical_velocity_500"):
        return
    cosine = np.cos(_RADIANS)
    weights = _band(10.0, 75.0)
    total, above, upper = np.zeros(_AREA.shape), None, 0.0
    for level in LEVELS:
        u, v = planes[f"u_component_of_wind_{level}"], planes[f"v_component_of_wind_{level}"]
        here = eastward(u) + northward(v * cosine) / np.maximum(cosine, 1e-6)
        mean = here if above is None else (here + above) / 2
        total = total - mean * 100.0 * (level - upper)
        above, upper = here, float(level)
        name = f"vertical_velocity_{level}"
        if 400 <= level <= 850 and name in planes:
            value = correlation(planes[name], total, weights)
            yield _CONTINUITY.judge("omega by continuity", name, value)
