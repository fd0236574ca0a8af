"""Fields derived from the channels of each member before any statistic is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.variables import CHANNELS, Variable

WIND_SPEED = Variable(
    "wind_speed", (), "pl", "wind_speed", "Wind speed", "ws", "m s-1", ((0.0, 200.0),) * 13
)
WIND_SPEED_10M = Variable(
    "10m_wind_speed", (), "sfc", "wind_speed", "10 metre wind speed", "10si", "m s-1",
    ((0.0, 120.0),),
)  # fmt: skip

_BY_NAME = {channel.name: channel for channel in CHANNELS}


@dataclass(frozen=True)
class Plane:
    """One 2-D field: a variable at a level (hPa) or at the surface, and the channels it needs.

    One source is the channel itself; two sources are the components of a wind speed.
    """

    variable: Variable
    level_hpa: int | None
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """2m_temperature, geopotential_500, wind_speed_850."""
        level = "" if self.level_hpa is None else f"_{self.level_hpa}"
        return f"{self.variable.name}{level}"

    def sources_in(
        self, fields: NDArray[np.float32], channels: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """The source fields (number, latitude, longitude), views of `fields`."""
        return [fields[:, channels.index(source)] for source in self.sources]

    def take(self, fields: NDArray[np.float32], channels: Sequence[str]) -> NDArray[np.float32]:
        """(number, latitude, longitude) from `fields` (number, channel, latitude, longitude)."""
        parts = self.sources_in(fields, channels)
        return parts[0] if len(parts) == 1 else np.sqrt(parts[0] ** 2 + parts[1] ** 2)


def planes_of(channels: Sequence[str], *, wind_speeds: bool = True) -> tuple[Plane, ...]:
    """A plane for every channel, then the wind speeds whose components are both there."""
    own = [Plane(_BY_NAME[name].variable, _BY_NAME[name].level_hpa, (name,)) for name in channels]
    return (*own, *(_speeds(channels) if wind_speeds else ()))


def _speeds(channels: Sequence[str]) -> list[Plane]:
    found = []
    for name in channels:
        north = name.replace("u_component", "v_component")
        if north == name or north not in channels:
            continue
        level = _BY_NAME[name].level_hpa
        variable = WIND_SPEED_10M if level is None else WIND_SPEED
        found.append(Plane(variable, level, (name, north)))
    return found
