"""The zonal-mean state: temperature, sea-level pressure, winds in gradient balance, humidity.

Every latitude dependence is a polynomial in mu = sin(latitude) without a linear term. The
meridional gradient of geopotential is then proportional to mu, like the Coriolis parameter, so that
the balanced wind is regular at the equator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from ingest.synthetic.constants import (
    EARTH_ROTATION,
    GAS_CONSTANT,
    LEVEL_HPA,
    LEVEL_S,
    REFERENCE_HPA,
    VIRTUAL,
    saturation_humidity,
)
from mosaic_core.contract.grid import EARTH_RADIUS_M

Float64 = NDArray[np.float64]

_NODE_LATITUDE = np.arange(-90.0, 91.0, 15.0)
_NODE_HPA = np.array([1000.0, 850.0, 700.0, 500.0, 300.0, 200.0, 100.0, 50.0, 25.0])
_POWERS = np.array([0, 2, 3, 4, 5, 6, 7, 8])

# Kelvin, rows as _NODE_HPA, columns as _NODE_LATITUDE. Round figures of a plausible planet.
_TEMPERATURE_JANUARY = np.array([
    [263, 268, 273.5, 283, 294.5, 299.5, 300, 298, 289, 277, 264, 252, 247],
    [258, 262, 266.5, 275.5, 285.5, 290.5, 290.5, 289.5, 282.5, 270, 258.5, 250, 247.5],
    [247.5, 252, 258, 267.5, 278, 282.5, 282.5, 281.5, 274, 261.5, 250.5, 243.5, 241],
    [237, 239, 244, 253, 263, 267.5, 267.5, 266.5, 260, 249, 239.5, 234, 232],
    [220, 221.5, 223.5, 229, 237, 241.5, 242, 240.5, 232.5, 222.5, 217.5, 214.5, 213.5],
    [228, 227, 224.5, 220, 219.5, 220, 220, 219.5, 217.5, 217.5, 217, 213.5, 212],
    [231, 229.5, 224, 213, 202, 195, 193, 194, 202, 211, 214, 209, 206],
    [236, 234, 227.5, 218.5, 211.5, 207, 206, 206.5, 210.5, 216, 215.5, 206, 200],
    [241, 239, 233, 225, 220, 218, 217.5, 218, 219, 220, 217, 206, 200],
])  # fmt: skip
_TEMPERATURE_JULY = np.array([
    [243, 254, 267, 279.5, 290, 297, 299.5, 301, 300.5, 292.5, 285, 276, 273],
    [238, 246, 260.5, 272, 281.5, 288, 290.5, 292.5, 293, 285.5, 277.5, 271, 268.5],
    [230, 237.5, 252, 263.5, 274, 281, 282.5, 283.5, 283.5, 277, 268.5, 263, 260.5],
    [223, 227.5, 239, 250.5, 260.5, 266.5, 267.8, 268.3, 267.5, 262, 255, 250.5, 249],
    [206, 209, 219, 226.5, 233.5, 240.5, 242, 242.5, 242, 236.5, 229.5, 226, 225],
    [196, 201.5, 213.5, 218.5, 218, 219.5, 220, 220.5, 221, 220.5, 225, 227, 228],
    [189.5, 196.5, 208, 211.5, 205.5, 199, 197.5, 197, 202, 212.5, 222.5, 227.5, 229],
    [186.5, 193.5, 207, 215, 214, 209.5, 208, 209, 213.5, 219.5, 226, 231, 232.5],
    [187, 194, 210, 220, 221, 219, 218, 218.5, 220.5, 225, 231, 236, 238],
])  # fmt: skip
_PRESSURE_JANUARY_HPA = np.array(
    [993, 989, 987, 1008, 1015, 1011.5, 1010, 1012.5, 1019.5, 1018, 1013, 1014, 1015.0]
)
_PRESSURE_JULY_HPA = np.array(
    [995, 989, 986, 1007, 1020, 1016, 1012, 1010, 1010.5, 1012.5, 1010.5, 1011, 1012.0]
)

# Relative humidity on the thirteen levels, 50 to 1000 hPa, before the shape in latitude.
_RELATIVE_HUMIDITY = np.array(
    [0.0, 0.03, 0.12, 0.29, 0.36, 0.40, 0.41, 0.42, 0.45, 0.52, 0.70, 0.77, 0.75]
)
_DRY_WEIGHT = np.array([0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.7, 0.45, 0.2, 0.05])
STRATOSPHERIC_HUMIDITY = 2.8e-6  # kg kg-1


def _polynomials(latitude: Float64) -> Float64:
    return np.sin(np.radians(latitude))[None, :] ** _POWERS[:, None]


def _slopes_over_mu(latitude: Float64) -> Float64:
    """d(mu^n)/d(mu) / mu of every power, shape (power, latitude); regular at the equator."""
    mu = np.sin(np.radians(latitude))[None, :]
    powers = _POWERS[:, None]
    return powers * mu ** np.clip(powers - 2, 0, None)


def _fit(table: Float64) -> Float64:
    """Polynomial coefficients (row, power) of values (row, node latitude)."""
    matrix = _polynomials(_NODE_LATITUDE).T
    return np.linalg.lstsq(matrix, table.T, rcond=None)[0].T.astype(np.float64)


def _blend(january: Float64, july: Float64, season: float) -> Float64:
    return 0.5 * (january + july) + 0.5 * season * (july - january)


def rain_belt_latitude(season: float) -> float:
    """Latitude of the intertropical convergence in degrees."""
    return 4.0 + 6.0 * season


def relative_humidity(latitude: Float64, season: float) -> Float64:
    """Zonal-mean relative humidity (level, latitude), 0..1, zero in the stratosphere."""
    distance = np.abs(latitude - rain_belt_latitude(season))
    dry = np.exp(-(((distance - 22.0) / 10.0) ** 2))
    moist = np.exp(-((distance / 9.0) ** 2))
    shape = 1.0 + _DRY_WEIGHT[:, None] * (0.5 * moist - 0.55 * dry)
    tropopause = 105.0 + 165.0 * np.sin(np.radians(latitude)) ** 4
    below = 0.5 * (1.0 + np.tanh((LEVEL_HPA[:, None] - tropopause - 30.0) / 28.0))
    return _RELATIVE_HUMIDITY[:, None] * shape * below


@dataclass(frozen=True)
class ZonalMean:
    """The zonal-mean state at one season on given latitudes, arrays (level, latitude)."""

    virtual_temperature: Float64
    geopotential: Float64
    eastward_wind: Float64
    sea_level_pressure_hpa: Float64


def _virtual(temperature: Float64, season: float) -> Float64:
    """Virtual temperature of the table, with the zonal-mean humidity of its levels."""
    humid = relative_humidity(_NODE_LATITUDE, season)
    rows = [np.interp(np.log(_NODE_HPA), np.log(LEVEL_HPA), column) for column in humid.T]
    vapour = np.array(rows).T * saturation_humidity(temperature, _NODE_HPA[:, None])
    return temperature * (1.0 + VIRTUAL * vapour)


def sea_level_pressure_hpa(latitude: Float64, season: float) -> Float64:
    """Zonal-mean sea-level pressure (latitude,) in hPa."""
    table = _blend(_PRESSURE_JANUARY_HPA, _PRESSURE_JULY_HPA, season)
    return (_fit(table[None, :]) @ _polynomials(latitude))[0]


def zonal_mean(latitude: Float64, season: float) -> ZonalMean:
    """The balanced zonal-mean state; `season` as `constants.season`."""
    table = _virtual(_blend(_TEMPERATURE_JANUARY, _TEMPERATURE_JULY, season), season)
    spline = CubicSpline(np.log(REFERENCE_HPA / _NODE_HPA), _fit(table), bc_type="natural")
    thickness = GAS_CONSTANT * spline.antiderivative()(LEVEL_S)
    pressure = _blend(_PRESSURE_JANUARY_HPA, _PRESSURE_JULY_HPA, season)
    lowest = GAS_CONSTANT * table[0] * np.log(pressure / REFERENCE_HPA)
    geopotential = _fit(lowest[None, :]) + thickness
    return ZonalMean(
        virtual_temperature=spline(LEVEL_S) @ _polynomials(latitude),
        geopotential=geopotential @ _polynomials(latitude),
        eastward_wind=_gradient_wind(geopotential @ _slopes_over_mu(latitude), latitude),
        sea_level_pressure_hpa=sea_level_pressure_hpa(latitude, season),
    )


def _gradient_wind(slope_over_mu: Float64, latitude: Float64) -> Float64:
    """Root of u^2 tan(lat)/a + f u + dPhi/dy = 0 that is geostrophic for weak gradients.

    With dPhi/dy = mu cos(lat)/a * slope and f = 2 Omega mu, mu divides out.
    """
    cosine = np.maximum(np.cos(np.radians(latitude)), 1e-4)
    force = slope_over_mu * cosine / EARTH_RADIUS_M
    curvature = 1.0 / (EARTH_RADIUS_M * cosine)
    root = np.sqrt(np.maximum(4.0 * EARTH_ROTATION**2 - 4.0 * curvature * force, 0.0))
    return -2.0 * force / (2.0 * EARTH_ROTATION + root)
