"""The made-up atmosphere: all 82 channels at any time, on any regular global grid.

A deterministic function of (valid time, seed): a zonal-mean state in gradient balance, travelling
baroclinic waves, red noise, heated continents with a diurnal cycle, and warm-core vortices. Virtual
temperature follows from geopotential by the hydrostatic equation, divergence from omega by
continuity, both exactly. Maps made from it are not weather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic import climate
from ingest.synthetic.constants import (
    GAS_CONSTANT,
    LEVEL_HPA,
    VIRTUAL,
    saturation_humidity,
    season,
)
from ingest.synthetic.harmonics import (
    GaussGrid,
    SphereGrid,
    along_latitude,
    along_longitude,
    inverse_laplacian,
    linear_balance,
)
from ingest.synthetic.statics import Planet, planet
from ingest.synthetic.structure import (
    Structure,
    bumps,
    decaying,
    near_surface,
    overturning,
    tilted,
)
from ingest.synthetic.vortices import Patch, Vortex, patch, vortices
from ingest.synthetic.weather import Weather
from mosaic_core.contract.grid import (
    LATITUDE,
    LONGITUDE,
    NATIVE_LATITUDE_COUNT,
    NATIVE_LONGITUDE_COUNT,
    NATIVE_SPACING_DEGREES,
    STANDARD_GRAVITY,
)
from mosaic_core.contract.variables import CHANNEL_NAMES, LEVELS

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex = NDArray[np.complex128]

DEGREE = 170  # spectral truncation, about 120 km: finer than the model's grid

_SYNOPTIC_TILT = 1.25  # radians of westward lean from 1000 hPa to the upper troposphere
NOISE = bumps((0.0, 0.45, 0.95, 1.55, 2.25, 3.1), (0.35, 0.42, 0.48, 0.52, 0.6, 0.7))
_SYNOPTIC = tilted((1.0, -0.1, 1.45, 0.72), _SYNOPTIC_TILT)
_PLANETARY = tilted((1.5, 0.0, 2.6, 1.5), 0.5)
BALANCED = Structure.beside([NOISE, _SYNOPTIC, _PLANETARY])
# Continents through the season, continents through the day, air masses.
HEATED = decaying((0.22, 0.06, 0.45))
LIFTED = Structure.beside([overturning([1, 2, 3]), near_surface(3), near_surface(6)])

_CONTINENTAL_CUTOFF = 22.0  # total wavenumber: coasts are smoothed where they drive wind
_TRADE_CORIOLIS = 4e-5  # s-1, keeps the wind of the heat lows regular at the equator
_LAPSE = 5.8e-3  # K m-1 between sea level and the model's ground
_DAILY_RANGE_K = 6.0  # half the range of 2 m temperature over dry land at the equator
_LATE_HOUR = 14.5  # local hour of the warmest 2 m temperature
# How much relative humidity follows ascent and filaments, 50 to 1000 hPa.
_RESPONSE = (0.3, 0.3, 0.3, 0.8, *(1.0,) * 6, 0.3, 0.25, 0.25)
_TIDE = 75.0  # m2 s-2, semidiurnal tide of the equator, about 0.9 hPa
_TIDE_HOUR = 10.0  # local hour of its maximum
_ROWS_AT_ONCE = 48  # rows of all levels that stay in the processor's cache


def native_latitude() -> Float64:
    """Rows of ECMWF's 0.25 degree files: 90 .. -90."""
    return 90.0 - np.arange(NATIVE_LATITUDE_COUNT, dtype=np.float64) * NATIVE_SPACING_DEGREES


def native_longitude(first: float = 180.0) -> Float64:
    """Columns of the 0.25 degree files, eastward from `first`, not wrapped."""
    return first + np.arange(NATIVE_LONGITUDE_COUNT, dtype=np.float64) * NATIVE_SPACING_DEGREES


class _Continents:
    """Land and slopes as spherical-harmonic coefficients: what drives the air above them."""

    def __init__(self, gauss: GaussGrid, seed: int) -> None:
        grid = SphereGrid(gauss.latitude, gauss.longitude, gauss.degree)
        ground = planet(grid, seed)
        land = ground.land_sea_mask.astype(np.float64)
        steady, seasonal = _continental_heating(grid.latitude[:, None])
        turn = np.radians(grid.longitude)[None, :]
        cosine, sine = np.cos(turn), np.sin(turn)
        daily = 0.4 * _DAILY_RANGE_K * land * _insolation(grid.latitude)[:, None]
        smooth = np.exp(-((np.arange(gauss.degree + 1) / _CONTINENTAL_CUTOFF) ** 4))
        self._heat = np.stack([
            gauss.project(field) * smooth
            for field in (land * steady, land * seasonal, daily * cosine, daily * sine)
        ])  # fmt: skip
        coriolis = grid.coriolis.astype(np.float64)
        damped = coriolis / (coriolis**2 + _TRADE_CORIOLIS**2)
        heat = grid.scalar(self._heat[:2])
        self._stream = np.stack([gauss.project(field * damped) for field in heat])
        self.slopes = _upslope(gauss, grid, ground)

    def heat(self, time: np.datetime64) -> Complex:
        """Warming of the 1000 hPa air in K, (seasonal | diurnal, m, n)."""
        angle = 2.0 * np.pi * (_hour(time) - _LATE_HOUR) / 24.0
        lasting = self._heat[0] + season(time) * self._heat[1]
        daily = np.cos(angle) * self._heat[2] - np.sin(angle) * self._heat[3]
        return np.stack([lasting, daily])

    def streamfunction(self, time: np.datetime64) -> Complex:
        """Wind of the seasonal heat lows and cold highs, per unit of their structure, (1, m, n)."""
        return (self._stream[0] + season(time) * self._stream[1])[None]


def _upslope(gauss: GaussGrid, grid: SphereGrid, ground: Planet) -> Complex:
    """Omega at the ground where the mean westerlies and trades meet slopes, (m, n)."""
    height = gauss.project(ground.geopotential_at_surface / STANDARD_GRAVITY)
    smooth = np.exp(-((np.arange(gauss.degree + 1) / 60.0) ** 4))
    steepness = grid.vector(along_longitude(height * smooth)[None])[0]
    wind = 6.0 * np.sin(np.radians(2.2 * grid.latitude[:, None] - 90.0))
    return gauss.project(np.clip(-11.0 * wind * steepness, -0.8, 0.8))


def _hour(time: np.datetime64) -> float:
    return float((time - time.astype("datetime64[D]")) / np.timedelta64(1, "h"))


def _continental_heating(latitude: Float64) -> tuple[Float64, Float64]:
    """Kelvin by which land is warmer than the zonal mean: all year, and in July."""
    mu = np.sin(np.radians(latitude))
    steady = 2.5 * np.exp(-(((np.abs(latitude) - 22.0) / 14.0) ** 2)) - 3.5 * mu**4
    return steady, 8.0 * mu * np.abs(mu) ** 0.5 * np.sqrt(np.cos(np.radians(latitude)))


def _insolation(latitude: Float64) -> Float64:
    return np.cos(np.radians(latitude)) ** 1.2


@lru_cache(maxsize=2)
def _weather(seed: int) -> tuple[Weather, _Continents]:
    gauss = GaussGrid(DEGREE)
    return Weather(gauss, seed), _Continents(gauss, seed)


@dataclass(frozen=True)
class _Moment:
    """What the fields of one time are made of: balanced mean, coefficients (pattern, m, n)."""

    time: np.datetime64
    mean: climate.ZonalMean
    streamfunction: Complex
    heat: Complex
    omega: Complex
    moisture: Complex


def _combine(structure: Float64, patterns: Float32, out: Float32) -> None:
    """out (level, lat, lon) += structure (level, pattern) x patterns (pattern, lat, lon)."""
    weights = structure.astype(np.float32)
    for start in range(0, out.shape[1], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        out[:, rows] += np.tensordot(weights, patterns[:, rows], 1)


class Atmosphere:
    """The made-up atmosphere on one grid.

    `latitude` in degrees, in any order, `longitude` degrees eastward round the full circle
    from any origin. Raises InputError for other longitudes.
    """

    def __init__(self, latitude: Float64, longitude: Float64, seed: int = 0) -> None:
        self.seed = seed
        self.grid = SphereGrid(latitude, longitude, DEGREE)
        self.planet = planet(self.grid, seed)
        self._weather, self._continents = _weather(seed)

    @classmethod
    def native(cls, seed: int = 0, first_longitude: float = 180.0) -> Atmosphere:
        """On the grid of ECMWF's open data: 721 x 1440, north to south."""
        return cls(native_latitude(), native_longitude(first_longitude), seed)

    @classmethod
    def model(cls, seed: int = 0) -> Atmosphere:
        """On the model's grid: 121 x 240, south to north."""
        return cls(LATITUDE, LONGITUDE, seed)

    def vortices(self, time: np.datetime64) -> tuple[Vortex, ...]:
        """The vortices in the fields of `time`."""
        return vortices(time, self.seed)

    def fields(self, time: np.datetime64) -> Float32:
        """All channels in the order of CHANNELS, SI units, (channel, latitude, longitude)."""
        result = np.zeros((len(CHANNEL_NAMES), *self.grid.shape), np.float32)
        count = len(LEVELS)
        surface, upper = result[:4], result[4:].reshape(6, count, *self.grid.shape)
        geopotential, humidity, temperature, east, north, omega = upper
        patches = [
            found
            for vortex in self.vortices(time)
            if (found := patch(vortex, self.grid.latitude, self.grid.longitude)) is not None
        ]
        moment = self._moment(time)
        lift = self._mass(moment, geopotential, temperature, omega)
        self._wind(moment, east, north)
        moist = np.zeros(self.grid.shape, np.float32)
        for found in patches:
            _add(found, (geopotential, temperature, east, north, omega), moist)
        virtual_lowest = temperature[-1].copy()
        self._moisten(moment, humidity, temperature, lift, moist)
        self._surface(time, surface, upper, virtual_lowest)
        return result

    def _moment(self, time: np.datetime64) -> _Moment:
        moving = self._weather.omega(time, 0.7 * _SYNOPTIC_TILT)
        balanced = self._weather.streamfunction(time)
        return _Moment(
            time=time,
            mean=climate.zonal_mean(self.grid.latitude, season(time)),
            streamfunction=np.concatenate([balanced, self._continents.streamfunction(time)]),
            heat=np.concatenate([self._continents.heat(time), self._weather.air_mass(time)]),
            omega=np.concatenate([moving, self._continents.slopes[None]]),
            moisture=self._weather.moisture(time),
        )

    def _mass(
        self, moment: _Moment, geopotential: Float32, temperature: Float32, omega: Float32
    ) -> Float32:
        """Fill geopotential, virtual temperature and omega; return the deep ascent pattern."""
        geopotential += moment.mean.geopotential[:, :, None].astype(np.float32)
        geopotential += self._tide(moment.time)
        temperature += moment.mean.virtual_temperature[:, :, None].astype(np.float32)
        balanced = self.grid.scalar(linear_balance(moment.streamfunction[:-1]))
        _combine(BALANCED.value, balanced, geopotential)
        _combine(BALANCED.slope / GAS_CONSTANT, balanced, temperature)
        heated = self.grid.scalar(moment.heat)
        _combine(HEATED.value * GAS_CONSTANT, heated, geopotential)
        _combine(HEATED.slope, heated, temperature)
        lifted = self.grid.scalar(moment.omega)
        _combine(LIFTED.value, lifted, omega)
        return lifted[0]

    def _wind(self, moment: _Moment, east: Float32, north: Float32) -> None:
        east += moment.mean.eastward_wind[:, :, None].astype(np.float32)
        # Divergence -Omega W' of omega Omega W: velocity potential by the inverse Laplacian.
        psi, potential = moment.streamfunction, inverse_laplacian(moment.omega)
        rotation = np.concatenate([BALANCED.value, HEATED.value[:, :1] * GAS_CONSTANT], axis=1)
        for target, turned, drawn in (
            (east, -along_latitude(psi), along_longitude(potential)),
            (north, along_longitude(psi), along_latitude(potential)),
        ):
            _combine(rotation, self.grid.vector(turned), target)
            _combine(-LIFTED.slope, self.grid.vector(drawn), target)

    def _tide(self, time: np.datetime64) -> Float32:
        """Semidiurnal tide of geopotential, the same on all levels, (latitude, longitude)."""
        local = _hour(time) + self.grid.longitude / 15.0 - _TIDE_HOUR
        meridian = _TIDE * np.cos(np.radians(self.grid.latitude)) ** 3
        return np.outer(meridian, np.cos(2.0 * np.pi * local / 12.0)).astype(np.float32)

    def _moisten(
        self,
        moment: _Moment,
        humidity: Float32,
        temperature: Float32,
        lift: Float32,
        core: Float32,
    ) -> None:
        """Fill specific humidity and turn virtual temperature into temperature, in place."""
        zonal = climate.relative_humidity(self.grid.latitude, season(moment.time))
        relative = zonal.astype(np.float32)
        ascent = np.clip(-1.3 * lift, -0.4, 0.4)
        ascent += np.float32(0.22) * self.grid.scalar(moment.moisture)[0]
        mu = np.sin(np.radians(self.grid.latitude))[:, None].astype(np.float32)
        driest = np.float32(climate.STRATOSPHERIC_HUMIDITY) * (0.86 + 0.4 * mu**2 + 0.1 * ascent)
        for level, pressure in enumerate(LEVEL_HPA):
            wetter = 1.0 + ascent * _RESPONSE[level]
            wet = relative[level][:, None] * wetter
            wet += core * (0.92 - wet) * (pressure > 220.0)
            np.clip(wet, 0.0, 1.0, out=wet)
            vapour = wet * saturation_humidity(temperature[level], np.float32(pressure))
            # Saturation belongs to the temperature, not the virtual one: one Newton step.
            vapour /= 1.0 + 11.0 * vapour
            humidity[level] = vapour + driest
            temperature[level] /= 1.0 + np.float32(VIRTUAL) * humidity[level]

    def _surface(
        self, time: np.datetime64, surface: Float32, upper: Float32, virtual_lowest: Float32
    ) -> None:
        geopotential, _, temperature, east, north, _ = upper
        land = self.planet.land_sea_mask
        height = self.planet.geopotential_at_surface / np.float32(STANDARD_GRAVITY)
        surface[0] = temperature[-1] - np.float32(_LAPSE) * height + land * self._land_heat(time)
        drag = (0.92 - 0.30 * land) * np.exp(-height / np.float32(20_000.0))
        towards_low = np.radians(12.0 + 16.0 * land) * np.sign(self.grid.coriolis)
        towards_low *= np.minimum(np.abs(self.grid.coriolis) / np.float32(5e-5), 1.0)
        cosine, sine = drag * np.cos(towards_low), drag * np.sin(towards_low)
        surface[1] = cosine * east[-1] - sine * north[-1]
        surface[2] = sine * east[-1] + cosine * north[-1]
        exponent = geopotential[-1] / (np.float32(GAS_CONSTANT) * virtual_lowest)
        surface[3] = np.float32(1e5) * np.exp(exponent)

    def _land_heat(self, time: np.datetime64) -> Float32:
        """What the ground adds to 2 m temperature beyond the air above it (lat, lon), K."""
        latitude = self.grid.latitude[:, None]
        steady, seasonal = _continental_heating(latitude)
        local = _hour(time) + self.grid.longitude[None, :] / 15.0 - _LATE_HOUR
        daily = _DAILY_RANGE_K * _insolation(latitude) * np.cos(2.0 * np.pi * local / 24.0)
        return (0.4 * (steady + season(time) * seasonal) + 0.6 * daily).astype(np.float32)


def _add(found: Patch, upper: tuple[Float32, ...], moist: Float32) -> None:
    where = np.ix_(np.arange(len(LEVELS)), found.rows, found.columns)
    additions = (
        found.geopotential,
        found.virtual_temperature,
        found.eastward_wind,
        found.northward_wind,
        found.omega,
    )
    for field, addition in zip(upper, additions, strict=True):
        field[where] += addition.astype(np.float32)
    moist[where[1][0], where[2][0]] = np.maximum(moist[where[1][0], where[2][0]], found.moisture)
