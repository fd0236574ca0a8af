"""Hopper (compute capability 9.0) query, key, value and gate projection, finished in one kernel.

The matrix product of `hopper_linear.py` with another epilogue: the norm scale of the row, the
rotary embedding and the sums of each sparse block, so that the heads go to memory once. A tile is
one sparse block of 128 tokens by four heads; each of the two consumers owns 64 tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    tma,
)

from mosaic_core.attention.kernels.hopper_linear import (
    _place,
    _produce,
    _product,
    _ring,
    boxes,
    step,
)
from mosaic_core.attention.kernels.launching import enqueue

BLOCK = 128  # tokens of one sparse block
HEAD_DIM = 64
COLUMNS = 256  # four heads
SLOTS = 3
BAND = 32


@gluon.jit
def _consume(
    half: gl.constexpr,
    smem,
    bars,
    out_smem,
    work,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    out_desc, row_scale, cos, sin, sums, sizes = work
    row_tiles, column_tiles, depth, tokens, heads, turned = sizes
    staging = out_smem.index(half)
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    lines = gl.arange(0, 64, gl.SliceLayout(1, wide))
    either, _other = gl.split(gl.zeros([64, 256], gl.float32, wide).reshape([64, 4, 32, 2]))
    parts: gl.constexpr = either.type.layout
    pair = gl.arange(0, 32, gl.SliceLayout(0, gl.SliceLayout(1, parts)))
    pair = gl.expand_dims(gl.expand_dims(pair, 0), 1)
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        # Loads that the epilogue needs run beside the products.
        factor = gl.load(row_scale + first_row + lines)
        row = gl.arange(0, 64, gl.SliceLayout(1, gl.SliceLayout(2, parts)))
        row = gl.expand_dims(gl.expand_dims((first_row + row) % tokens, 1), 2)
        head = gl.arange(0, 4, gl.SliceLayout(0, gl.SliceLayout(2, parts))) + column_tile * 4
        head = gl.expand_dims(gl.expand_dims(head, 0), 2)
        c = gl.load(cos + row * 32 + pair)
        s = gl.load(sin + row * 32 + pair)
        product, slot, phase = _product(half, smem, bars, slot, phase, depth, SLOTS)
        product *= gl.expand_dims(factor, 1)
        even, odd = gl.split(product.reshape([64, 4, 32, 2]))
        c = gl.where(head < turned, c, 1.0)
        s = gl.where(head < turned, s, 0.0)
        first = even * c - odd * s
        second = odd * c + even * s
        at_head = gl.arange(0, 4, gl.SliceLayout(1, gl.SliceLayout(0, parts))) + column_tile * 4
        at_pair = gl.arange(0, 32, gl.SliceLayout(0, gl.SliceLayout(0, parts)))
        to = (row_tile * 2 + half).to(gl.int64) * heads + gl.expand_dims(at_head, 1)
        to = sums + to * 64 + gl.expand_dims(at_pair, 0) * 2
        real = gl.expand_dims(at_head < heads, 1)
        gl.store(to, gl.sum(first, axis=0), mask=real)
        gl.store(to + 1, gl.sum(second, axis=0), mask=real)
        result = gl.join(first, second)
        if column_tile * 4 + 4 > turned:
            value = gl.expand_dims((head >= turned) & (head < heads), 3)
            bits = result.to(gl.bfloat16).to(staging.dtype, bitcast=True)
            narrow = gl.where(value, bits, result.to(staging.dtype))
        else:
            narrow = result.to(staging.dtype)
        tma.store_wait(0)
        staging.store(gl.convert_layout(narrow.reshape([64, 256]), wide))
        fence_async_shared()
        tma.async_copy_shared_to_global(out_desc, [first_row, column_tile * 256], staging)
    tma.store_wait(0)


SIZE_ARGUMENTS = ["row_tiles", "column_tiles", "depth", "tokens", "heads", "turned"]


@gluon.jit(do_not_specialize=SIZE_ARGUMENTS)  # one compilation for every level and batch
def project(
    x_desc,
    w_desc,
    out_desc,
    row_scale,
    cos,
    sin,
    sums,
    row_tiles,
    column_tiles,
    depth,
    tokens,
    heads,
    turned,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    """out = rotated (s x W^T), s the scale of the row, and its sums over halves of blocks.

    x (row, depth) in boxes of 64 x step, w (width, depth) of 256 x step, a step of LINE bytes, out
    (row, width) of 64 x 256, of which the first `heads` x 64 columns are heads and the first
    `turned` of those rotate by the angles cos, sin (tokens, 32); the other heads, the values, are
    written as bfloat16. sums (row / 64, heads, 64) float32.
    """
    smem, bars = _ring(x_desc, w_desc, SLOTS)
    out_smem = gl.allocate_shared_memory(out_desc.dtype, [2, 64, 256], out_desc.layout)
    fence_async_shared()
    sizes = (row_tiles, column_tiles, depth, tokens, heads, turned)
    work = (out_desc, row_scale, cos, sin, sums, sizes)
    feed = ((x_desc, w_desc), row_tiles, column_tiles, depth)
    gl.warp_specialize(
        [
            (_consume, (0, smem, bars, out_smem, work, SLOTS, BAND)),
            (_consume, (1, smem, bars, out_smem, work, SLOTS, BAND)),
            (_produce, (smem, bars, feed, SLOTS, BAND)),
        ],
        [4, 1],
        [240, 24],
    )


def fits(x: Tensor, weight: Tensor, head_dim: int, block: int) -> bool:
    """Whether this kernel computes these sizes."""
    return (
        x.element_size() == 2
        and head_dim == HEAD_DIM
        and block == BLOCK
        and weight.shape[0] % HEAD_DIM == 0
        and x.shape[1] % step(x) == 0
    )


def launch(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    rotation: tuple[Tensor, Tensor],
    *,
    heads: int,
    turned: int,
    tokens: int,
    out: Tensor,
    processors: int,
) -> Tensor:
    """The heads and gates into `out` (rows, columns) -> block means (block, heads, HEAD_DIM).

    Arguments as of `projection.project`; `heads` counts all heads, of which the first `turned`
    rotate and the others are values. The means are float32.
    """
    rows, depth = x.shape
    columns = weight.shape[0]
    sums = torch.empty(rows // BLOCK, 2, heads, HEAD_DIM, dtype=torch.float32, device=x.device)
    row_tiles, column_tiles = rows // BLOCK, -(-columns // COLUMNS)
    enqueue(project, (min(processors, row_tiles * column_tiles),))(
        boxes(x, 64, step(x)),
        boxes(weight, COLUMNS, step(x)),
        boxes(out, 64, COLUMNS),
        scale,
        *rotation,
        sums,
        row_tiles,
        column_tiles,
        depth,
        tokens,
        heads,
        turned,
        SLOTS,
        BAND,
        num_warps=4,
    )
    return sums.sum(dim=1) * (1 / BLOCK)
