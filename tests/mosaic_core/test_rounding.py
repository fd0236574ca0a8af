from __future__ import annotations

import numpy as np
import torch

from mosaic_core.rounding import bit_rounded
from postprocess.rounding import round_into


def test_it_is_the_rounding_of_the_stores_to_the_bit() -> None:
    """Two pieces of code, one for tensors and one for arrays: every kind of value, many bits."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 2**32, (2, 4, 50, 40), dtype=np.uint32)
    odd = [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFF800000, 0x7F800000, 0, 0x80000000, 1]
    patterns[0, :, 0, : len(odd)] = odd
    fields, bits = patterns.view(np.float32), (1, 7, 14, 22)
    found = bit_rounded(torch.from_numpy(fields.copy()), bits).numpy()
    for channel, kept in enumerate(bits):
        wanted = np.empty_like(fields[:, channel])
        with np.errstate(invalid="ignore"):
            round_into(wanted, np.ascontiguousarray(fields[:, channel]), kept)
        assert np.array_equal(found[:, channel].view(np.uint32), wanted.view(np.uint32))


def test_all_bits_kept_is_no_change() -> None:
    fields = torch.randn(1, 2, 5, 6)
    assert torch.equal(bit_rounded(fields, (23, 23)), fields)
