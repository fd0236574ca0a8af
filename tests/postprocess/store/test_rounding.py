from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.variables import CHANNELS, VARIABLES, channel
from postprocess.rounding import KEEP_BITS, bit_round, keep_bits, mantissa_bits, round_into


def test_to_the_nearest_and_ties_away_from_zero() -> None:
    step = 2.0**-8
    values = np.array([1 + step / 2, -1 - step / 2, 1 + 0.49 * step, 1.0], dtype=np.float32)
    bit_round(values, 8)
    assert values.tolist() == [1 + step, -1 - step, 1.0, 1.0]


def test_without_bits_it_is_a_copy() -> None:
    source = np.random.default_rng(0).normal(size=(24, 11)).astype(np.float32)
    target = np.empty_like(source)
    round_into(target, source, None)
    assert np.array_equal(target, source)


@pytest.mark.parametrize("bits", [1, 8, 14, 22])
def test_error_is_at_most_half_a_step(bits: int) -> None:
    values = np.random.default_rng(0).normal(0, 1e4, 10_000).astype(np.float32)
    rounded = values.copy()
    bit_round(rounded, bits)
    assert np.all(np.abs(rounded - values) <= np.abs(values) * 2.0 ** -(bits + 1))
    again = rounded.copy()
    bit_round(again, bits)
    assert np.array_equal(again, rounded)


def test_infinities_and_nan_keep_their_bits() -> None:
    odd = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFF800000, 0x7F800000], dtype=np.uint32)
    values = np.append(odd.view(np.float32), np.float32(1.23456789))
    bit_round(values, 8)
    assert np.array_equal(values[:5].view(np.uint32), odd)
    assert values[5] == np.float32(1.234375)


def test_every_channel_has_its_bits_and_other_words_are_refused() -> None:
    assert set(KEEP_BITS) == {variable.name for variable in VARIABLES}
    assert {keep_bits(entry, "none") for entry in CHANNELS} == {None}
    assert all(7 <= (keep_bits(entry, "default") or 0) <= 17 for entry in CHANNELS)
    assert keep_bits(channel("geopotential_500"), "default") == 14
    assert mantissa_bits("default") == tuple(keep_bits(c, "default") for c in CHANNELS)
    assert mantissa_bits("none") is None
    with pytest.raises(StoreError, match="unknown rounding"):
        keep_bits(channel("temperature_500"), "some")
