"""Fields of all 82 channels with the means and the power spectra of real analyses.

Gaussian random fields on the sphere. The spectra are those of ERA5 and IFS analyses regridded to
1.5 degrees (power per degree, read off at a few degrees, scaled by level): what decides how many
mantissa bits a field needs, and how well it compresses.
"""

from __future__ import annotations

import ducc0
import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.variables import CHANNELS, LEVELS

LMAX = 119
_DEGREES = (1, 5, 10, 20, 40, 60, 80, 100, 110, 119)
# Power per degree of the real fields, in their unit squared.
_POWER = {
    "2m_temperature": (1.44, 3.48, 0.991, 0.196, 0.0805, 0.0297, 0.0125, 0.0076, 0.0063, 0.0072),
    "mean_sea_level_pressure": (2e5, 1.3e5, 3.8e4, 2850, 263, 61, 30, 15.8, 11, 10),
    "geopotential": (1.1e5, 9.3e4, 4.5e4, 2720, 101, 19.6, 3.4, 1.24, 0.52, 0.38),
    "temperature": (7.0, 1.2, 0.81, 0.11, 0.0132, 0.004, 9.8e-4, 4.2e-4, 2.2e-4, 2.0e-4),
    "wind": (1.0, 2.5, 1.6, 0.35, 0.064, 0.030, 0.0142, 0.0075, 0.0057, 0.004),
    "vertical_velocity": (3e-5, 2e-4, 3e-4, 3.5e-4, 3e-4, 2.5e-4, 2e-4, 1.5e-4, 1.2e-4, 1e-4),
    # of the logarithm, for a variance of about one half
    "specific_humidity": (0.01, 0.05, 0.03, 0.008, 0.0015, 7e-4, 4e-4, 3e-4, 2.6e-4, 2.3e-4),
}
_MEAN = {
    "2m_temperature": (277.0,),
    "mean_sea_level_pressure": (1.011e5,),
    "geopotential": (
        2.02e5, 1.59e5, 1.34e5, 1.16e5, 1.02e5, 9.0e4, 7.1e4, 5.5e4, 4.15e4, 2.97e4, 1.44e4,
        7.6e3, 9e2,
    ),
    "temperature": (210, 204, 212, 218, 224, 231, 244, 254, 263, 270, 278, 281, 284),
    "specific_humidity": (
        2.6e-6, 2.8e-6, 5e-6, 2e-5, 6e-5, 1.5e-4, 5e-4, 1.2e-3, 2.2e-3, 3.7e-3, 6.5e-3, 8e-3,
        9.5e-3,
    ),
}  # fmt: skip
# The lower troposphere has more of the small scales: ERA5 at 850 hPa against 500 hPa.
_TAIL = {"temperature": (1.0,) * 10 + (4.0, 5.0, 6.0), "geopotential": (1.0,) * 9 + (1.5,) * 4}
# Equator minus pole, on top of the random field.
_CONTRAST = {"2m_temperature": 50.0, "temperature": 40.0, "geopotential": 6e3}
# Spread of the logarithm of humidity: the stratosphere is evenly dry.
_MOIST_SPREAD = (0.1, 0.2) + (1.0,) * 11


def fields(seed: int) -> NDArray[np.float32]:
    """(channel, latitude, longitude) of one member at one lead, as a ForecastStep carries them."""
    return np.stack([field(index, seed) for index in range(len(CHANNELS))])


def field(index: int, seed: int) -> NDArray[np.float32]:
    """One channel, (latitude, longitude)."""
    channel = CHANNELS[index]
    name = channel.variable.name
    level = 0 if channel.level_hpa is None else LEVELS.index(channel.level_hpa)
    random = np.random.default_rng([seed, index])
    tail = _TAIL.get(name, (1.0,) * len(LEVELS))[level]
    anomaly = _anomaly("wind" if "wind" in name else name, tail, random)
    mean = _MEAN.get(name, (0.0,) * len(LEVELS))[level]
    if name == "specific_humidity":
        values = mean * np.exp(_MOIST_SPREAD[level] * anomaly)
    else:
        height = np.cos(np.deg2rad(np.linspace(-90, 90, 121)))[:, None]
        values = mean + anomaly + _CONTRAST.get(name, 0.0) * (height - 0.7)
    return values.astype(np.float32)


def power(field: NDArray[np.floating]) -> NDArray[np.float64]:
    """Power per degree 0..119 of a map (latitude, longitude), exact on this grid."""
    rows = np.ascontiguousarray(field[::-1], dtype=np.float64)[None]
    modes = ducc0.sht.analysis_2d(map=rows, spin=0, lmax=LMAX, geometry="CC")[0]
    total = np.zeros(LMAX + 1)
    for order, part in enumerate(np.split(modes, _starts()[1:-1])):
        total[order:] += (1 if order == 0 else 2) * np.abs(part) ** 2
    return total / (4 * np.pi)


def _starts() -> NDArray[np.int64]:
    return np.cumsum([0, *range(LMAX + 1, 0, -1)])


def _anomaly(name: str, tail: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A random map (latitude, longitude) with the power per degree of the table.

    `tail` multiplies the power at the highest degrees, with a smooth onset from degree 20.
    """
    degrees = np.arange(1, LMAX + 1)
    power = np.exp(np.interp(np.log(degrees), np.log(_DEGREES), np.log(_POWER[name])))
    power *= tail ** np.clip(np.log(degrees / 20) / np.log(80 / 20), 0, 1)
    size = np.concatenate([[0.0], np.sqrt(4 * np.pi * power / (2 * degrees + 1))])
    parts = []
    for order in range(LMAX + 1):
        noise = random.standard_normal((2, LMAX + 1 - order)) / (1 if order == 0 else np.sqrt(2))
        mode = noise[0] + (0 if order == 0 else 1j) * noise[1]
        parts.append(mode * size[order:])
    modes = np.concatenate(parts).astype(np.complex128)[None]
    rows = ducc0.sht.synthesis_2d(
        alm=modes, spin=0, lmax=LMAX, ntheta=121, nphi=240, geometry="CC"
    )[0]
    return np.ascontiguousarray(rows[::-1])
