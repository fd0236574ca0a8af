"""Coastlines of the world, shipped with the package (Natural Earth, public domain)."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

_END = 32767
_HUNDREDTHS = 100.0


@lru_cache(maxsize=1)
def coastlines() -> NDArray[np.float64]:
    """Longitude (-180..180) and latitude (n, 2) in degrees; a row of NaN ends each line."""
    with files("postprocess.plots").joinpath("data/coastlines_110m.npz").open("rb") as file:
        points = np.load(file, allow_pickle=False)["points"]
    return np.where(points == _END, np.nan, points / _HUNDREDTHS)


def around(longitude: NDArray[np.floating], centre: float) -> NDArray[np.float64]:
    """Longitudes within 180 degrees of `centre`."""
    return np.asarray((longitude - centre + 180.0) % 360.0 - 180.0 + centre)


def unbroken(
    longitude: NDArray[np.floating], latitude: NDArray[np.floating], centre: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A line on a map centred on `centre`, with NaN put in where it leaves one edge."""
    x = around(np.asarray(longitude, dtype=np.float64), centre)
    y = np.asarray(latitude, dtype=np.float64)
    jumps = np.flatnonzero(np.abs(np.diff(x)) > 180.0) + 1
    return np.insert(x, jumps, np.nan), np.insert(y, jumps, np.nan)


def draw_coastlines(axes: Axes, centre: float = 0.0) -> None:
    """Coastlines and a 30 degree graticule on axes in degrees, the map centred on `centre`."""
    points = coastlines()
    x, y = unbroken(points[:, 0], points[:, 1], centre)
    axes.plot(x, y, color="black", linewidth=0.5, zorder=3)
    axes.set_xticks(np.arange(centre - 180, centre + 181, 60))
    axes.set_xticklabels([_east_west(x) for x in np.arange(centre - 180, centre + 181, 60)])
    axes.set_yticks(np.arange(-60, 61, 30))
    axes.set_yticklabels([_north_south(y) for y in range(-60, 61, 30)])
    axes.tick_params(labelsize=7, color="#6b6b6b", labelcolor="#6b6b6b")
    axes.grid(color="#6b6b6b", alpha=0.35, linewidth=0.4)
    axes.set_aspect("equal")


def _east_west(longitude: float) -> str:
    degrees = (longitude + 180) % 360 - 180
    if abs(degrees) in (0, 180):
        return f"{abs(degrees):g}°"
    return f"{abs(degrees):g}°{'E' if degrees > 0 else 'W'}"


def _north_south(latitude: float) -> str:
    if latitude == 0:
        return "0°"
    return f"{abs(latitude):g}°{'N' if latitude > 0 else 'S'}"
