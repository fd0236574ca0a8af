"""RMS norms: the scale of each row, and whole rows with what precedes the norm fused in.

A norm without weight commutes with the linear map behind it, W (s x) = s (W x), so most norms of
the network exist only as the float32 scale of each row, applied after the matrix product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.launching import enqueue

ROWS_AT_ONCE = 4  # one row for each warp of a program


@triton.jit
def _row_scale(
    x, scale, rows, width, eps, TWICE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    lines = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (lines < rows)[:, None] & (columns < width)[None, :]
    at = x + lines[:, None] * width + columns[None, :]
    values = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(values * values, axis=1) / width
    factor = 1.0 / tl.sqrt(mean_square + eps)
    if TWICE:  # the norm of the normed row: its mean square is mean_square * factor^2
        factor *= 1.0 / tl.sqrt(mean_square * factor * factor + eps)
    tl.store(scale + lines, factor, mask=lines < rows)


def row_scale(x: Tensor, eps: float, *, twice: bool = False) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) of each row of x (rows, width): (rows,) float32.

    With `twice`, the scale of two norms in a row.
    """
    rows, width = x.shape
    out = torch.empty(rows, dtype=torch.float32, device=x.device)
    grid = (triton.cdiv(rows, ROWS_AT_ONCE),)
    padded = triton.next_power_of_2(width)
    enqueue(_row_scale, grid)(x, out, rows, width, eps, twice, ROWS_AT_ONCE, padded, num_warps=4)
    return out


@triton.jit
def _scale_of_sums(sums, scale, rows, parts, width, eps, ROWS: tl.constexpr):
    lines = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], tl.float32)
    for part in range(parts):
        total += tl.load(sums + part * rows.to(tl.int64) + lines, mask=lines < rows, other=0.0)
    tl.store(scale + lines, 1.0 / tl.sqrt(total / width + eps), mask=lines < rows)


def scale_of_sums(sums: Tensor, width: int, eps: float) -> Tensor:
    """`row_scale` of rows of `width` elements from `sums` (part, row) of their squares."""
    parts, rows = sums.shape
    out = torch.empty(rows, dtype=torch.float32, device=sums.device)
    enqueue(_scale_of_sums, (triton.cdiv(rows, 1024),))(sums, out, rows, parts, width, eps, 1024)
    return out


@triton.jit
def _normed_sum(
    x,
    table,
    skip,
    out,
    table_rows,
    width,
    eps,
    TABLE: tl.constexpr,
    SKIP: tl.constexpr,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    inside = columns < width
    total = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if TABLE:
        at = table + (row % table_rows) * width + columns
        total += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if SKIP:
        total += tl.load(skip + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    normed = total / tl.sqrt(tl.sum(total * total, axis=0) / width + eps)
    if SILU:
        normed = normed / (1.0 + tl.exp(-normed))
    tl.store(out + row * width + columns, normed.to(out.dtype.element_ty), mask=inside)


def normed_sum(
    x: Tensor,
    eps: float,
    *,
    table: Tensor | None = None,
    skip: Tensor | None = None,
    silu: bool = False,
    out: Tensor,
) -> Tensor:
    """RMS norm of x + table + skip, then SiLU on demand: (rows, width) into `out`.

    `table` (some rows, width) repeats for every member, `skip` has the rows of x.
    """
    rows, width = x.shape
    padded = triton.next_power_of_2(width)
    enqueue(_normed_sum, (rows,))(
        x,
        x if table is None else table,
        x if skip is None else skip,
        out,
        rows if table is None else len(table),
        width,
        eps,
        table is not None,
        skip is not None,
        silu,
        padded,
        num_warps=1 if padded <= 1024 else 2,
    )
    return out


@triton.jit
def _scaled_silu(x, scale, width, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    at = x + row * width + columns
    values = tl.load(at, mask=columns < width, other=0.0).to(tl.float32) * tl.load(scale + row)
    activated = values / (1.0 + tl.exp(-values))
    tl.store(at, activated.to(x.dtype.element_ty), mask=columns < width)


def scaled_silu(x: Tensor, scale: Tensor) -> Tensor:
    """SiLU(scale x) in place, x (rows, width), scale (rows,) float32."""
    rows, width = x.shape
    enqueue(_scaled_silu, (rows,))(x, scale, width, triton.next_power_of_2(width), num_warps=1)
    return x
