"""The rest of an open-data file: messages that the model does not want and a reader must not take.

Soil levels that look like pressure levels, geopotential of the ground beside that of the levels,
accumulations that are still constant zero at step 0, and more fields on the same levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.constants import saturation_humidity
from ingest.synthetic.grib import Label
from ingest.synthetic.statics import Planet
from mosaic_core.contract.grid import EARTH_RADIUS_M, STANDARD_GRAVITY
from mosaic_core.contract.variables import CHANNEL_NAMES, LEVELS

Float32 = NDArray[np.float32]
Decoys = Literal["none", "light", "full"]

_ACCUMULATIONS = ("tp", "sf", "ro", "ssrd", "strd", "ssr", "str", "ttr", "ewss", "nsss")
_SOIL_LEVELS = (1, 2, 3, 4)


def decoys(kind: Decoys, fields: Float32, planet: Planet) -> Iterator[tuple[Label, Float32]]:
    """Extra messages: 'none', 'light' (23, a third of them tiny), or 'full' (52 more on levels).

    `fields` are all channels (channel, latitude N->S, longitude) on the planet's grid.
    """
    if kind == "none":
        return
    yield from _at_the_ground(fields, planet)
    zero = np.zeros(fields.shape[1:], np.float32)
    yield from ((Label(param, "sfc", accumulated=True), zero) for param in _ACCUMULATIONS)
    if kind == "full":
        yield from _on_levels(fields)


def _at_the_ground(fields: Float32, planet: Planet) -> Iterator[tuple[Label, Float32]]:
    skin = fields[0]
    height = planet.geopotential_at_surface / np.float32(STANDARD_GRAVITY)
    yield Label("z", "sfc"), planet.geopotential_at_surface
    yield Label("lsm", "sfc"), planet.land_sea_mask
    yield Label("skt", "sfc"), skin
    yield Label("2d", "sfc"), skin - np.float32(3.0)
    yield Label("sp", "sfc"), fields[3] * np.exp(-height / np.float32(8000.0))
    for level in _SOIL_LEVELS:
        yield Label("sot", "sol", level), skin + np.float32(level)
        yield Label("vsw", "sol", level), planet.land_sea_mask * np.float32(0.1 * level)


def _on_levels(fields: Float32) -> Iterator[tuple[Label, Float32]]:
    for level in LEVELS:
        z, t, q, u, v = (
            fields[CHANNEL_NAMES.index(f"{name}_{level}")]
            for name in (
                "geopotential",
                "temperature",
                "specific_humidity",
                "u_component_of_wind",
                "v_component_of_wind",
            )
        )
        yield Label("gh", "pl", level), z / np.float32(STANDARD_GRAVITY)
        yield Label("r", "pl", level), 100 * q / saturation_humidity(t, float(level))
        yield Label("vo", "pl", level), _spin(u, v)
        yield Label("d", "pl", level), _spin(-v, u)


def _spin(u: Float32, v: Float32) -> Float32:
    """Relative vorticity by centred differences on rows north to south, s-1; zero at the poles.

    With (-v, u) for (u, v) the same expression is the divergence.
    """
    rows, columns = u.shape
    cosine = np.cos(np.radians(np.linspace(90.0, -90.0, rows)))[:, None].astype(np.float32)
    east = (np.roll(v, -1, 1) - np.roll(v, 1, 1)) / np.float32(4.0 * np.pi / columns)
    north = np.gradient(u * cosine, -np.pi / (rows - 1), axis=0)
    safe = np.maximum(cosine, np.float32(1e-3)) * np.float32(EARTH_RADIUS_M)
    result = (east - north) / safe
    result[[0, -1]] = 0.0
    return np.asarray(result, np.float32)
