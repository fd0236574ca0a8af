"""Bit rounding of forecast fields on the device that made them, where it costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mosaic_core.model.placement import sent

_MANTISSA_BITS = 23


def bit_rounded(fields: Tensor, mantissa_bits: Sequence[int]) -> Tensor:
    """float32 `fields` (member, channel, ...) with the explicit mantissa bits of each channel.

    To the nearest, ties away from zero; infinities and NaN keep their bits. The same integer
    arithmetic on the bit patterns on every device, so the result is the same too.
    """
    dropped = _MANTISSA_BITS - torch.tensor(mantissa_bits, dtype=torch.int32)
    shape = (-1, *[1] * (fields.ndim - 2))
    half = sent((1 << dropped) >> 1, fields.device).view(shape)
    kept = sent(-1 << dropped, fields.device).view(shape)
    pattern = (fields.view(torch.int32) + half).bitwise_and_(kept)
    # The NaN of a GPU has every mantissa bit set: rounded up, it would turn into -0.
    return torch.where(fields.isfinite(), pattern.view(torch.float32), fields)
