"""Warm-core vortices over the tropical oceans and a cold-core low: where they are, what they add.

Each basin breeds one vortex after another, for ever, so that every hour of every year has some.
The radial profile is Holland's (1980), the wind in gradient balance, the inflow as by continuity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.climate import sea_level_pressure_hpa
from ingest.synthetic.constants import (
    EARTH_ROTATION,
    GAS_CONSTANT,
    LEVEL_S,
    season,
    seconds_since_2000,
)
from ingest.synthetic.structure import overturning
from mosaic_core.contract.grid import EARTH_RADIUS_M

Float64 = NDArray[np.float64]
Category = Literal["warm", "cold"]

_DAY_S = 86_400.0
_SPACING_DAYS = 8.0  # from one vortex of a basin to the next
_LIFETIME_DAYS = 10.0
_REACH_RADII = 2.6  # the Gaussian taper leaves 1e-3 of the profile there
_LIFT_PA_S = 1.3  # ascent in the core of a mature warm vortex
_LIFT_RADIUS_M = 160e3


@dataclass(frozen=True)
class _Basin:
    name: str
    category: Category
    start: tuple[float, float]  # latitude, longitude
    travel: tuple[float, float]  # degrees over the lifetime
    bend: tuple[float, float]  # degrees added with the square of the age
    deepest_pa: tuple[float, float]
    offset_days: float


_BASINS = (
    _Basin("west-pacific", "warm", (10, 158), (13, -36), (6, 6), (2600, 3900), 0.0),
    _Basin("atlantic", "warm", (12, -34), (9, -36), (8, 8), (2200, 3400), 2.1),
    _Basin("east-pacific", "warm", (11.5, -108), (8, -30), (0, 0), (1900, 2900), 5.2),
    _Basin("south-indian", "warm", (-11, 92), (-9, -32), (-4, 4), (2200, 3400), 3.7),
    _Basin("south-pacific", "warm", (-12, 168), (-9, 24), (-5, 6), (2200, 3600), 6.4),
    _Basin("north-pacific-low", "cold", (46, 168), (-3, 42), (2, 0), (1600, 2200), 1.3),
)


@dataclass(frozen=True)
class Vortex:
    """Truth about one vortex at one time.

    `depth_pa` is the deficit of sea-level pressure at the centre (0.25 degree scale),
    `central_pressure_pa` that below the zonal-mean pressure: other weather adds some hPa.
    `radius_m` is the radius of maximum wind. Longitude is 0..360.
    """

    name: str
    category: Category
    latitude: float
    longitude: float
    depth_pa: float
    central_pressure_pa: float
    radius_m: float

    @property
    def hemisphere(self) -> int:
        """+1 north, -1 south of the equator: the sign of cyclonic vorticity."""
        return 1 if self.latitude > 0 else -1


def vortices(time: np.datetime64, seed: int) -> tuple[Vortex, ...]:
    """All vortices at a time that are at least 1 hPa deep."""
    found = []
    for order, basin in enumerate(_BASINS):
        days = seconds_since_2000(time) / _DAY_S - basin.offset_days
        newest = int(np.floor(days / _SPACING_DAYS))
        for number in (newest - 1, newest):
            age = (days - number * _SPACING_DAYS) / _LIFETIME_DAYS
            if age < 1.0:
                found.append(_vortex(basin, number, age, [seed, 41, order, number + 10_000], time))
    return tuple(vortex for vortex in found if vortex.depth_pa > 100.0)


def _vortex(basin: _Basin, number: int, age: float, key: list[int], time: np.datetime64) -> Vortex:
    rng = np.random.default_rng(key)
    jitter = rng.uniform(-1.5, 1.5, 2)
    stretch = rng.uniform(0.85, 1.1)
    bent = age**2 * np.array(basin.bend)
    latitude, longitude = (
        np.array(basin.start) + jitter + stretch * age * np.array(basin.travel) + bent
    )
    deepest = rng.uniform(*basin.deepest_pa)
    depth = deepest * np.sin(np.pi * age**0.8) ** 1.2
    ambient = sea_level_pressure_hpa(np.array([latitude]), season(time))[0] * 100.0
    return Vortex(
        name=f"{basin.name}-{number}",
        category=basin.category,
        latitude=float(latitude),
        longitude=float(longitude % 360.0),
        depth_pa=float(depth),
        central_pressure_pa=float(ambient - depth),
        radius_m=float(rng.uniform(65e3, 95e3) if basin.category == "warm" else 300e3),
    )


@dataclass(frozen=True)
class Patch:
    """What a vortex adds, on the rows and columns around it: arrays (level, row, column).

    `geopotential` m2 s-2, `virtual_temperature` K, winds m/s, `omega` Pa/s; `moisture`
    (row, column) is 1 in the core and 0 outside.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    geopotential: Float64
    virtual_temperature: Float64
    eastward_wind: Float64
    northward_wind: Float64
    omega: Float64
    moisture: Float64


def _structure(category: Category) -> tuple[Float64, Float64]:
    """Decay of the geopotential deficit with height, 1 at 1000 hPa, and its slope in s."""
    if category == "warm":
        value = 1.0 / (1.0 + np.exp((LEVEL_S - 1.15) / 0.33))
        bottom = 1.0 / (1.0 + np.exp(-1.15 / 0.33))
        return value / bottom, -value * (1.0 - value) / 0.33 / bottom
    value = np.exp(-(((LEVEL_S - 1.1) / 1.3) ** 2))
    bottom = np.exp(-((1.1 / 1.3) ** 2))
    return value / bottom, -2.0 * (LEVEL_S - 1.1) / 1.3**2 * value / bottom


def _radial(vortex: Vortex, distance: Float64) -> tuple[Float64, Float64]:
    """Holland profile of the deficit with a Gaussian taper, 1 at the centre, and -d/dr of it."""
    exponent = 1.5 if vortex.category == "warm" else 1.8
    reach = _taper_radius(vortex)
    ratio = (vortex.radius_m / distance) ** exponent
    holland = -np.expm1(-ratio)
    taper = np.exp(-((distance / reach) ** 2))
    falling = np.exp(-ratio) * ratio * exponent / distance
    return holland * taper, (falling + 2.0 * distance / reach**2 * holland) * taper


def _taper_radius(vortex: Vortex) -> float:
    return 550e3 if vortex.category == "warm" else 900e3


def _offsets(vortex: Vortex, latitude: Float64, longitude: Float64) -> tuple[Float64, ...]:
    """Great-circle distance (m, at least 1 km) and the outward direction (east, north) there."""
    phi, centre = np.radians(latitude)[:, None], np.radians(vortex.latitude)
    turn = np.radians(longitude - vortex.longitude)[None, :]
    east = np.cos(centre) * np.sin(turn)
    north = np.sin(phi) * np.cos(centre) * np.cos(turn) - np.cos(phi) * np.sin(centre)
    cosine = np.sin(phi) * np.sin(centre) + np.cos(phi) * np.cos(centre) * np.cos(turn)
    length = np.hypot(east, north)
    distance = np.arctan2(length, cosine) * EARTH_RADIUS_M
    safe = np.maximum(length, 1e-9)
    return np.maximum(distance, 1e3), east / safe, north / safe


def patch(vortex: Vortex, latitude: Float64, longitude: Float64) -> Patch | None:
    """The contribution of a vortex to a grid; None when no grid point lies within its reach."""
    reach_degrees = np.degrees(_REACH_RADII * _taper_radius(vortex) / EARTH_RADIUS_M)
    rows = np.flatnonzero(np.abs(latitude - vortex.latitude) < reach_degrees)
    apart = np.abs((longitude - vortex.longitude + 180.0) % 360.0 - 180.0)
    widest = np.cos(np.radians(min(abs(vortex.latitude) + reach_degrees, 80.0)))
    columns = np.flatnonzero(apart < reach_degrees / widest)
    if rows.size == 0 or columns.size == 0:
        return None
    distance, east, north = _offsets(vortex, latitude[rows], longitude[columns])
    return _fields(vortex, (rows, columns), distance, (east, north))


def _fields(
    vortex: Vortex,
    where: tuple[NDArray[np.intp], NDArray[np.intp]],
    distance: Float64,
    outward: tuple[Float64, Float64],
) -> Patch:
    warmth = 300.0 if vortex.category == "warm" else 280.0
    depth = GAS_CONSTANT * warmth * np.log1p(vortex.depth_pa / vortex.central_pressure_pa)
    shape, steepness = _radial(vortex, distance)
    value, slope = _structure(vortex.category)
    coriolis = 2.0 * EARTH_ROTATION * abs(np.sin(np.radians(vortex.latitude)))
    half = 0.5 * coriolis * distance
    force = distance * depth * value[:, None, None] * steepness
    swirl = vortex.hemisphere * (np.sqrt(np.maximum(half**2 + force, 0.0)) - half)
    omega, inflow, moisture = _overturning(vortex, distance)
    east, north = outward
    return Patch(
        rows=where[0],
        columns=where[1],
        geopotential=-depth * value[:, None, None] * shape,
        virtual_temperature=-depth / GAS_CONSTANT * slope[:, None, None] * shape,
        eastward_wind=-swirl * north + inflow * east,
        northward_wind=swirl * east + inflow * north,
        omega=omega,
        moisture=moisture,
    )


def _overturning(vortex: Vortex, distance: Float64) -> tuple[Float64, Float64, Float64]:
    """Omega, radial wind (positive outward) and core moisture.

    omega = -L G W(p) with G = (1 - x) exp(-x), x = (r / R)^2, whose area integral is zero; the
    radial wind L W'(p) r exp(-x) / 2 has the divergence -d(omega)/dp exactly.
    """
    strength = _LIFT_PA_S * vortex.depth_pa / 3000.0 * (vortex.category == "warm")
    radius = _LIFT_RADIUS_M
    x = (distance / radius) ** 2
    structure = overturning([1])
    value, slope = structure.value[:, :, None], structure.slope[:, :, None]
    core = np.exp(-x)
    omega = -strength * value * (1.0 - x) * core
    inflow = strength * slope * distance * core / 2.0
    return omega, inflow, np.exp(-x / 6.0) * min(vortex.depth_pa / 1500.0, 1.0)
