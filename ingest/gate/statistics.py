"""Checks of single fields: are these numbers that the channel can have?

Limits in standard deviations are of the model's statistics. Their margins: over real fields held
for the purpose and a year of the made-up atmosphere, no value comes nearer than half way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.gate.reference import Planes, Reference
from ingest.gate.verdict import Finding, Limits, unchecked
from mosaic_core.contract.variables import CHANNELS, Channel

_FINITE = Limits(1, 1, "every point must have a value")
_RANGE = Limits(1e-12, 1e-12, "outside what the atmosphere can be; wrong units look like this")
_CONSTANT = Limits(1e-5, 1e-6, "relative difference of extremes; a field is never one number")
_MEAN = Limits(0.5, 1.0, "seasons move the grid mean by 0.2 standard deviations")
# Volcanoes and the quasi-biennial oscillation move stratospheric humidity for years.
_MEAN_DRY = Limits(2.0, 4.0, "stratospheric humidity drifts by one standard deviation")
_FLAT = Limits(0.35, 0.2, "one map varies about as much as the statistics; less is wrong units")
_WILD = Limits(2.0, 3.0, "one map varies about as much as the statistics; more is wrong units")
_NEGATIVE = Limits(0.01, 0.2, "area share below zero; packing leaves a little")
_EXTREME = {
    "specific_humidity": Limits(40.0, 80.0, "moist plumes reach 25 standard deviations"),
    "vertical_velocity": Limits(60.0, 120.0, "cyclones reach 30 standard deviations"),
}
_EXTREME_OTHER = Limits(10.0, 16.0, "cyclones and jets reach 8 standard deviations")


def single_fields(planes: Planes, reference: Reference) -> Iterator[Finding]:
    """Finite, range, spread, mean, extremes, sign of humidity, for every channel there is."""
    for index, channel in enumerate(CHANNELS):
        if channel.name not in planes:
            continue
        missing = int((~np.isfinite(planes[channel.name])).sum())
        yield _FINITE.judge("missing values", channel.name, missing)
        if missing == 0:
            yield from _ranges(planes, channel)
            if reference.mean is not None and reference.std is not None:
                mean, std = float(reference.mean[index]), float(reference.std[index])
                yield from _scores(planes, channel, mean, std)
    if reference.mean is None:
        yield unchecked("mean", "the model's statistics were not given")


def _ranges(planes: Planes, channel: Channel) -> Iterator[Finding]:
    values = planes[channel.name]
    lowest, highest = float(values.min()), float(values.max())
    width = channel.maximum - channel.minimum
    beyond = max(channel.minimum - lowest, highest - channel.maximum, 0.0) / width
    yield _RANGE.judge("range", channel.name, beyond)
    # Sums in another order leave a constant with differences in the last places.
    level = (highest - lowest) / max(abs(highest), abs(lowest), 1e-30)
    yield _CONSTANT.judge("constant", channel.name, level)
    if channel.variable.name == "specific_humidity":
        yield _NEGATIVE.judge("negative humidity", channel.name, float((values < 0).mean()))


def _scores(planes: Planes, channel: Channel, mean: float, std: float) -> Iterator[Finding]:
    values = planes[channel.name].astype(np.float64)
    dry = channel.variable.name == "specific_humidity" and (channel.level_hpa or 0) <= 150
    shift = abs(float(values.mean()) - mean) / std
    yield (_MEAN_DRY if dry else _MEAN).judge("mean", channel.name, shift)
    spread = float(values.std()) / std
    yield _FLAT.judge("spread too small", channel.name, spread)
    yield _WILD.judge("spread too large", channel.name, spread)
    extreme = float(np.abs(values - mean).max()) / std
    limits = _EXTREME.get(channel.variable.name, _EXTREME_OTHER)
    yield limits.judge("extremes", channel.name, extreme)


# Root mean square change in standard deviations. The published 24-hour changes are 0.04-0.2 for
# mass and temperature, 0.2-0.55 for wind, 0.1-0.4 for humidity, 0.5-1.3 for vertical velocity;
# twice those refuse, so that an analysis one day old may stand in for the one before.
_CHANGE = {
    "2m_temperature": Limits(0.3, 0.45, "a day changes 0.12, the time of day as much"),
    "10m_u_component_of_wind": Limits(0.7, 1.0, "a day changes 0.4"),
    "10m_v_component_of_wind": Limits(0.9, 1.2, "a day changes 0.5"),
    "mean_sea_level_pressure": Limits(0.35, 0.5, "a day changes 0.2"),
    "geopotential": Limits(0.3, 0.45, "a day changes up to 0.2"),
    "specific_humidity": Limits(0.7, 1.0, "a day changes up to 0.4"),
    "temperature": Limits(0.3, 0.45, "a day changes 0.1 to 0.2"),
    "u_component_of_wind": Limits(0.6, 0.9, "a day changes up to 0.4"),
    "v_component_of_wind": Limits(0.9, 1.2, "a day changes up to 0.55"),
    "vertical_velocity": Limits(2.0, 3.0, "independent fields differ by 1.4"),
}
_IDENTICAL = Limits(0.5, 0.9, "share of points exactly as before; a served-again field has all")


def changes(planes: Planes, previous: Planes | None, reference: Reference) -> Iterator[Finding]:
    """Change since the analysis before (up to a day earlier), and whether any field is that one."""
    if previous is None:
        yield unchecked("change", "no analysis of the day before is at hand")
        return
    for index, channel in enumerate(CHANNELS):
        if channel.name not in planes or channel.name not in previous:
            continue
        difference = planes[channel.name].astype(np.float64) - previous[channel.name]
        yield _IDENTICAL.judge("same as before", channel.name, float((difference == 0).mean()))
        if reference.std is not None:
            rms = float(np.sqrt((difference**2).mean())) / float(reference.std[index])
            yield _CHANGE[channel.variable.name].judge("change", channel.name, rms)
