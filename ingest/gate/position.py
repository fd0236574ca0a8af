"""Is the map the right way round? The imprint of the mountains on 2 m temperature tells.

Both fields keep only what is smaller than about 13 degrees. On a real analysis the correlation is
-0.73 in place, weaker than 0.23 at any other turn of the longitudes, and below 0.04 upside down.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ingest.gate.reference import Plane, Planes, Reference
from ingest.gate.verdict import Finding, Limits, unchecked
from mosaic_core.contract.grid import LATITUDE, SPACING_DEGREES, area_weights

_HALF_WINDOW = 4  # cells; the mean over 9 x 9 cells is taken away
_IMPRINT = Limits(0.5, 0.35, "0.73 on real data; a turned or flipped map stays below 0.23")
_ROUGH = Limits(0.0, -0.15, "wind is weaker over land: 0.2 on real winds at 1000 hPa")
_TURN = Limits(1.0, 1.6, "degrees from here to the best match; one cell is 1.5")
_UPSIDE_DOWN = Limits(0.2, 0.3, "match of the map upside down; 0.04 on real data")
_LAND_CHANGE = Limits(0.04, 0.08, "rms; another version of the map differs by 0.016")
_HEIGHT_CHANGE = Limits(600.0, 1500.0, "rms in m2 s-2; another version of the map differs by 300")
_WEIGHTS = np.sqrt(area_weights(LATITUDE))[:, None] * (np.abs(LATITUDE) <= 75.0)[:, None]


def position(planes: Planes, reference: Reference) -> Iterator[Finding]:
    """Longitude phase and latitude orientation from 2 m temperature over the model's orography."""
    if reference.surface_geopotential is None:
        yield unchecked("longitude phase", "the model's static fields were not given")
        return
    if "2m_temperature" not in planes:
        yield unchecked("longitude phase", "no 2 m temperature")
        return
    mountains = fine_structure(reference.surface_geopotential)
    air = fine_structure(planes["2m_temperature"])
    match = -matches(air, mountains)
    turn = int(match.argmax())
    degrees = min(turn, match.size - turn) * SPACING_DEGREES
    yield _IMPRINT.judge("imprint of mountains", "2m_temperature", float(match[0]))
    yield _TURN.judge("longitude phase", "2m_temperature", degrees)
    flipped = float((-matches(air[::-1], mountains)).max())
    yield _UPSIDE_DOWN.judge("latitude orientation", "2m_temperature", flipped)


def roughness(planes: Planes, reference: Reference) -> Iterator[Finding]:
    """The imprint of land on the speed of the wind at 10 m, as minus the correlation."""
    names = "10m_u_component_of_wind", "10m_v_component_of_wind"
    if reference.land is not None and all(name in planes for name in names):
        speed = np.hypot(planes[names[0]], planes[names[1]])
        value = -matches(fine_structure(speed), fine_structure(reference.land))[0]
        yield _ROUGH.judge("imprint of land", "10 m wind speed", float(value))


def fine_structure(field: Plane) -> NDArray[np.float64]:
    """The field less its running mean over 9 x 9 cells; rows are mirrored at the poles."""
    n = _HALF_WINDOW
    wide = np.asarray(field, np.float64)
    padded = np.concatenate([wide[:, -n:], wide, wide[:, :n]], axis=1)
    padded = np.concatenate([padded[n:0:-1], padded, padded[-2 : -n - 2 : -1]])
    sums = np.pad(padded, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    size = 2 * n + 1
    box = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    return wide - box / size**2


def matches(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of `a` with `b` for each eastward turn of `a` (longitude,), |latitude| <= 75."""
    left, right = a * _WEIGHTS, b * _WEIGHTS
    product = np.fft.rfft(left, axis=1) * np.conj(np.fft.rfft(right, axis=1))
    norm = np.sqrt((left**2).sum() * (right**2).sum())
    if norm == 0:
        return np.zeros(a.shape[1])
    return np.fft.irfft(product.sum(axis=0), a.shape[1]) / norm


def statics(incoming: Planes, reference: Reference) -> Iterator[Finding]:
    """The incoming land mask and orography against those that came with the weights."""
    held = {
        "land_sea_mask": (reference.land, _LAND_CHANGE),
        "geopotential_at_surface": (reference.surface_geopotential, _HEIGHT_CHANGE),
    }
    weights = area_weights(LATITUDE)[:, None]
    for name, (field, limits) in held.items():
        if field is None or name not in incoming:
            yield unchecked("statics", f"{name} was not given")
        else:
            difference = incoming[name].astype(np.float64) - field
            yield limits.judge("statics", name, float(np.sqrt((weights * difference**2).mean())))
