"""Rows and weights in 8 bits: int8 values with float32 scales, largest magnitude 127.

Rows of the residual stream have one scale each, because their norm is one of its factors; rows
of a hidden layer have one for each GROUP columns, so that the tile that makes them knows it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.launching import enqueue

GROUP = 128  # columns of a hidden layer with one scale
ROWS_AT_ONCE = 4  # one row for each warp of a program
LEAST = 1e-30  # stands for the largest magnitude of a row of zeros


@triton.jit
def _quantized(x, out, scale, rows, width, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    lines = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (lines < rows)[:, None] & (columns < width)[None, :]
    at = lines[:, None] * width + columns[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(values), axis=1), 1e-30)
    whole = tl.floor(values * (127.0 / largest)[:, None] + 0.5)
    tl.store(out + at, whole.to(tl.int8), mask=inside)
    mean_square = tl.sum(values * values, axis=1) / width
    tl.store(scale + lines, largest / 127.0 / tl.sqrt(mean_square + eps), mask=lines < rows)


def quantized(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMS norm of rows x (rows, width) in 8 bits: int8 values and the float32 scale of each row."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.int8, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    padded = triton.next_power_of_2(width)
    grid = (triton.cdiv(rows, ROWS_AT_ONCE),)
    enqueue(_quantized, grid)(x, out, scale, rows, width, eps, ROWS_AT_ONCE, padded, num_warps=4)
    return out, scale


def quantized_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (rows, depth) in 8 bits: int8 values and the float32 scale of each row."""
    step = weight.abs().amax(dim=1).float().clamp(min=LEAST) / 127
    return (weight.float() / step[:, None]).round().to(torch.int8), step


def hidden_groups(width: int) -> int:
    """Scales of a row of a hidden layer of `width` columns."""
    return width // GROUP if width % GROUP == 0 else 1


def quantize_hidden(x: Tensor, out: Tensor, scale: Tensor) -> None:
    """Rows of a hidden layer into int8 `out` (rows, width) and float32 `scale` (groups, rows)."""
    parts = x.float().unflatten(1, (len(scale), -1))
    step = parts.abs().amax(dim=2).clamp(min=LEAST) / 127
    scale.copy_(step.T)
    out.copy_((parts / step[..., None]).round().flatten(1))


def widened_hidden(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantize_hidden` made, as `dtype`."""
    parts = values.float().unflatten(1, (len(scale), -1))
    return (parts * scale.T[..., None]).flatten(1).to(dtype)


def widened_weight(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A weight as `dtype`, its rows times `scale` where it is int8."""
    return weight if scale is None else (weight * scale[:, None]).to(dtype)
