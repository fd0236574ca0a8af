"""Vertical structure functions of the weather patterns and the omega they come with.

The height coordinate is s = ln(1000 hPa / p). A pattern with streamfunction psi(lat, lon) and
structure V(s) has geopotential B(psi) V, where B is the linear balance, winds V times the rotated
gradient of psi, and by the hydrostatic equation a virtual temperature B(psi) V'(s) / R. A pattern
Omega(lat, lon) with structure W(p) has omega = Omega W and, by continuity, divergence -Omega W'(p).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.constants import LEVEL_HPA, LEVEL_S

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """Values and derivatives of structure functions on the 13 levels, arrays (level, pattern).

    The derivative is with respect to s for geopotential, to p in Pa for omega.
    """

    value: Float64
    slope: Float64

    @classmethod
    def beside(cls, parts: Sequence[Structure]) -> Structure:
        """The patterns of several structures one after the other."""
        return cls(
            np.concatenate([part.value for part in parts], axis=1),
            np.concatenate([part.slope for part in parts], axis=1),
        )


def bumps(centres: Sequence[float], widths: Sequence[float]) -> Structure:
    """Gaussians in s, one pattern each."""
    distance = (LEVEL_S[:, None] - np.array(centres)) / np.array(widths)
    value = np.exp(-(distance**2))
    return Structure(value, -2.0 * distance / np.array(widths) * value)


def decaying(scales: Sequence[float]) -> Structure:
    """-scale * exp(-s / scale): the slope is 1 at 1000 hPa and decays upwards."""
    scale = np.array(scales)
    slope = np.exp(-LEVEL_S[:, None] / scale)
    return Structure(-scale * slope, slope)


def tilted(amplitude: Sequence[float], tilt: float) -> Structure:
    """A wave that leans westward with height, as the pair of its cosine and sine patterns.

    The amplitude 1 + a s + b s^2 decays above s = c over d, with (a, b, c, d) = `amplitude`. The
    phase is tilt * (1 - exp(-s / 0.6)) radians: baroclinic below, upright in the upper troposphere.
    """
    a, b, top, depth = amplitude
    s = LEVEL_S
    growth, growth_slope = 1.0 + a * s + b * s**2, a + 2.0 * b * s
    over = np.clip(s - top, 0.0, None) / depth
    decay, decay_slope = np.exp(-(over**2)), -2.0 * over / depth * np.exp(-(over**2))
    size, size_slope = growth * decay, growth_slope * decay + growth * decay_slope
    phase = tilt * (1.0 - np.exp(-s / 0.6))
    phase_slope = tilt / 0.6 * np.exp(-s / 0.6)
    value = np.stack([size * np.cos(phase), size * np.sin(phase)], axis=1)
    slope = np.stack(
        [
            size_slope * np.cos(phase) - size * phase_slope * np.sin(phase),
            size_slope * np.sin(phase) + size * phase_slope * np.cos(phase),
        ],
        axis=1,
    )
    return Structure(value, slope)


_SURFACE_HPA = 1013.25
_BEND = 1.6  # puts the strongest vertical motion near 650 hPa and little above 200 hPa


def overturning(numbers: Sequence[int]) -> Structure:
    """sin(n pi y) with y = (p / 1013.25 hPa)^1.6: omega vanishes at the top and at sea level."""
    n = np.array(numbers, np.float64)
    x = LEVEL_HPA[:, None] / _SURFACE_HPA
    angle = n * np.pi * x**_BEND
    rate = n * np.pi * _BEND * x ** (_BEND - 1.0) / (_SURFACE_HPA * 100.0)
    return Structure(np.sin(angle), np.cos(angle) * rate)


def near_surface(power: int) -> Structure:
    """(p / 1013.25 hPa)^power: omega over slopes and in the boundary layer."""
    x = LEVEL_HPA[:, None] / _SURFACE_HPA
    return Structure(x**power, power * x ** (power - 1) / (_SURFACE_HPA * 100.0))
