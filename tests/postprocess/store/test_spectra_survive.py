"""Rounding must not change what the forecast is: its spectrum, at every degree, in any channel."""

from __future__ import annotations

import numpy as np
import pytest
import realistic

from mosaic_core.contract.variables import CHANNELS
from postprocess.rounding import bit_round, keep_bits

TOLERANCE = 0.03
DEGREES = slice(1, 111)


def change(field: np.ndarray, bits: int) -> float:
    """Largest relative change of the power at a degree from 1 to 110."""
    rounded = np.array(field, order="C")
    bit_round(rounded, bits)
    before, after = realistic.power(field), realistic.power(rounded)
    return float(np.abs(after / before - 1)[DEGREES].max())


@pytest.mark.parametrize("index", range(len(CHANNELS)), ids=lambda i: CHANNELS[i].name)
def test_power_changes_by_at_most_three_percent(index: int) -> None:
    bits = keep_bits(CHANNELS[index], "default")
    assert bits is not None
    assert change(realistic.field(index, seed=1), bits) <= TOLERANCE


def test_the_popular_seven_bits_would_fail_on_kelvin_and_geopotential() -> None:
    names = [channel.name for channel in CHANNELS]
    for name in ("temperature_500", "geopotential_500", "mean_sea_level_pressure"):
        assert change(realistic.field(names.index(name), seed=1), 7) > 0.5


def test_the_fields_have_the_power_they_were_asked_for() -> None:
    names = [channel.name for channel in CHANNELS]
    field = realistic.field(names.index("u_component_of_wind_500"), seed=2)
    assert realistic.power(field)[110] == pytest.approx(0.0057, rel=0.4)
