"""Checks against the analysis before, level by level: is each field the next one of its own?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ingest.gate.physics import correlation
from ingest.gate.reference import Planes
from ingest.gate.verdict import Finding, Limits
from mosaic_core.contract.variables import LEVELS, VARIABLES

# Distance to its own level before over that to the nearest other. Two exchanged levels give the
# inverse: 3 and more. Levels that differ by less than they change in the time between, as the
# humidities of 50 and 100 hPa of the made-up atmosphere do, cannot be told apart.
_OWN = Limits(1.05, 1.15, "1.0 at most over a made-up year; exchanged levels give the inverse")
# A warning only: on real analyses the coherence of changes could not be tried.
_TOGETHER = Limits(0.2, -1.01, "0.4 and more over a made-up year; a field a day old is negative")
# Waves that lean with height bring the wind of one level to the next within hours.
_LEVEL_BY_LEVEL = ("geopotential", "temperature", "specific_humidity")
_COHERENT = ("geopotential", "u_component_of_wind", "v_component_of_wind")


def since_before(planes: Planes, previous: Planes | None) -> Iterator[Finding]:
    """Both checks for every variable whose levels are all there, now and before."""
    if previous is None:
        return
    for variable in VARIABLES:
        names = [f"{variable.name}_{level}" for level in LEVELS]
        if variable.on_levels and all(name in planes and name in previous for name in names):
            now = np.stack([planes[name][::2, ::2] for name in names]).astype(np.float64)
            before = np.stack([previous[name][::2, ::2] for name in names]).astype(np.float64)
            if variable.name in _LEVEL_BY_LEVEL:
                yield from own_level(names, now, before)
            if variable.name in _COHERENT:
                yield moving_together(names, now - before)


def own_level(
    names: list[str], now: NDArray[np.float64], before: NDArray[np.float64]
) -> Iterator[Finding]:
    """Each level (level, latitude, longitude) is nearer to itself before than to any other."""
    for index, name in enumerate(names):
        apart = np.sqrt(((before - now[index]) ** 2).mean(axis=(1, 2)))
        others = float(np.delete(apart, index).min())
        yield _OWN.judge("its own level before", name, float(apart[index]) / max(others, 1e-30))


def moving_together(names: list[str], change: NDArray[np.float64]) -> Finding:
    """The least correlation of a level's change (level, latitude, longitude) with its nearer
    neighbour's."""
    flat = np.ones(change.shape[1:])
    links = [correlation(a, b, flat) for a, b in pairwise(change)]
    best = [max(pair) for pair in zip([-1.0, *links], [*links, -1.0], strict=True)]
    worst = int(np.argmin(best))
    return _TOGETHER.judge("moves with its neighbours", names[worst], best[worst])
