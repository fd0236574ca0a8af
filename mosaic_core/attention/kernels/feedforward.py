"""SwiGLU with noise as the epilogue of its projection: the Hopper kernel or one for any GPU.

Gate and value rows of the weight alternate in groups, so that one tile of it makes both halves of
an output tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels import choices
from mosaic_core.attention.kernels.choices import Choice
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.eight_bit import quantize_hidden, widened_weight
from mosaic_core.attention.kernels.launching import enqueue

GROUP = 128  # rows of W1, then the same of W3: the output tile of the Hopper kernel


@triton.jit
def _swiglu(
    x,
    w,
    scale,
    bias,
    out,
    rows,
    hidden,
    depth,
    tokens,
    bias_stride,
    group,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    BAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row_tiles, column_tiles = tl.cdiv(rows, ROWS), tl.cdiv(hidden, COLUMNS)
    band = tl.program_id(0) // (BAND * column_tiles)
    within = tl.program_id(0) - band * BAND * column_tiles
    height = tl.minimum(row_tiles - band * BAND, BAND)
    lines = (band * BAND + within % height) * ROWS + tl.arange(0, ROWS)
    columns = (within // height) * COLUMNS + tl.arange(0, COLUMNS)
    wide = lines.to(tl.int64)
    steps = tl.arange(0, STEP)
    x_at = x + wide[:, None] * depth + steps[None, :]
    gate_rows = (columns // group * (2 * group) + columns % group).to(tl.int64)
    gate_at = w + gate_rows[None, :] * depth + steps[:, None]
    value_at = gate_at + group * depth
    gate = tl.zeros([ROWS, COLUMNS], tl.float32)
    value = tl.zeros([ROWS, COLUMNS], tl.float32)
    row_in, column_in = (lines < rows)[:, None], (columns < hidden)[None, :]
    for start in range(0, depth, STEP):
        deep = steps < depth - start
        xs = tl.load(x_at + start, mask=row_in & deep[None, :], other=0.0)
        gates = tl.load(gate_at + start, mask=column_in & deep[:, None], other=0.0)
        values = tl.load(value_at + start, mask=column_in & deep[:, None], other=0.0)
        gate = tl.dot(xs, gates, gate, input_precision=PRECISION)
        value = tl.dot(xs, values, value, input_precision=PRECISION)
    factor = tl.load(scale + lines, mask=lines < rows, other=0.0)[:, None]
    member = wide // tokens
    shift_at = bias + member[:, None] * bias_stride + columns[None, :]
    gate = gate * factor + tl.load(shift_at, mask=row_in & column_in, other=0.0).to(tl.float32)
    result = gate * (value * factor) / (1.0 + tl.exp(-gate))
    to = out + wide[:, None] * hidden + columns[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=row_in & column_in)


def interleave(w13: Tensor) -> Tensor:
    """[W1; W3] (2 hidden, depth) with the rows of both alternating in groups of `_group`."""
    gate, value = (part.unflatten(0, (-1, _group(w13))) for part in w13.chunk(2))
    return torch.stack([gate, value], dim=1).flatten(0, 2)


def _group(w13: Tensor) -> int:
    hidden = w13.shape[0] // 2
    return GROUP if hidden % GROUP == 0 else hidden


def swiglu(
    x: Tensor,
    w13: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    tokens: int,
    out: Tensor,
    weight_scale: Tensor | None = None,
    out_scale: Tensor | None = None,
) -> Tensor:
    """silu(s x W1^T + bias) * (s x W3^T) into `out` (rows, hidden), s the scale of the row.

    x (rows, depth), w13 as `interleave` makes it, `scale` (rows,) float32, `bias` (member,
    hidden) float32 with any row stride; `tokens` rows make a member. x and w13 are of the type of
    `out`, or int8 with the `weight_scale` (2 hidden,) float32 of each row of w13; then `out` may
    be int8 too, as `eight_bit.quantize_hidden` makes it with `out_scale` (groups, rows).
    """
    device = describe(x.device)
    if device.hopper:
        from mosaic_core.attention.kernels import hopper_linear

        if hopper_linear.fits(x, w13, tokens):
            return hopper_linear.launch(
                x,
                w13,
                scale,
                weight_scale,
                bias,
                tokens=tokens,
                out=out,
                out_scale=out_scale,
                processors=device.processors,
                tuning=hopper_linear.Tuning(),
            )
    dtype = out.dtype if out_scale is None else torch.float32
    weight = widened_weight(w13, weight_scale, dtype)
    wide = out if out_scale is None else torch.empty(out.shape, dtype=dtype, device=out.device)
    portable_swiglu(x.to(dtype), weight, scale, bias, tokens=tokens, out=wide)
    if out_scale is not None:
        quantize_hidden(wide, out, out_scale)
    return out


def portable_swiglu(
    x: Tensor,
    w13: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    tokens: int,
    out: Tensor,
    choice: Choice | None = None,
) -> Tensor:
    """`swiglu` on any GPU, in tiles of `choice` (default: what suits the GPU)."""
    rows, depth = x.shape
    hidden = w13.shape[0] // 2
    gpu = describe(x.device)
    choice = choice or choices.choice(gpu, "swiglu")
    row_tile, column_tile, step = choice.tile
    step_bytes = (row_tile + 2 * column_tile) * step * x.element_size()
    grid = (triton.cdiv(rows, row_tile) * triton.cdiv(hidden, column_tile),)
    enqueue(_swiglu, grid)(
        x,
        w13,
        scale,
        bias,
        out,
        rows,
        hidden,
        depth,
        tokens,
        bias.stride(0),
        _group(w13),
        row_tile,
        column_tile,
        step,
        8,
        "ieee",
        num_warps=choice.warps,
        num_stages=choice.stages or gpu.stages(step_bytes),
    )
    return out
