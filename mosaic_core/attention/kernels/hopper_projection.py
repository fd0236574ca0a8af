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
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from mosaic_core.attention.kernels.hopper_linear import STEP, SWIZZLED, _next, _place, _produce

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
    STEP: gl.constexpr,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    out_desc, row_scale, cos, sin, sums, row_tiles, column_tiles, depth, tokens, heads, turned = (
        work
    )
    x_smem, w_smem = smem
    ready, empty = bars
    staging = out_smem.index(half)
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    lines = gl.arange(0, 64, gl.SliceLayout(1, wide))
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        product = gl.zeros([64, 256], gl.float32, wide)
        for start in range(0, depth, STEP):
            mbarrier.wait(ready.index(slot), phase)
            w = w_smem.index(slot).permute((1, 0))
            product = warpgroup_mma(x_smem.index(slot * 2 + half), w, product, is_async=True)
            product = warpgroup_mma_wait(1, deps=(product,))
            before = gl.where(slot == 0, SLOTS, slot) - 1
            mbarrier.arrive(empty.index(before), count=1, pred=start > 0)
            slot, phase = _next(slot, phase, SLOTS)
        product = warpgroup_mma_wait(0, deps=(product,))
        mbarrier.arrive(empty.index(gl.where(slot == 0, SLOTS, slot) - 1), count=1)

        product *= gl.expand_dims(gl.load(row_scale + first_row + lines), 1)
        even, odd = gl.split(product.reshape([64, 4, 32, 2]))
        parts: gl.constexpr = even.type.layout
        row = gl.arange(0, 64, gl.SliceLayout(1, gl.SliceLayout(2, parts)))
        row = gl.expand_dims(gl.expand_dims((first_row + row) % tokens, 1), 2)
        head = gl.arange(0, 4, gl.SliceLayout(0, gl.SliceLayout(2, parts))) + column_tile * 4
        head = gl.expand_dims(gl.expand_dims(head, 0), 2)
        pair = gl.arange(0, 32, gl.SliceLayout(0, gl.SliceLayout(1, parts)))
        pair = gl.expand_dims(gl.expand_dims(pair, 0), 1)
        c = gl.load(cos + row * 32 + pair)
        s = gl.load(sin + row * 32 + pair)
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
        result = gl.join(first, second).reshape([64, 256])
        tma.store_wait(0)
        staging.store(gl.convert_layout(result, wide).to(staging.dtype))
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
    STEP: gl.constexpr,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    """out = rotated (s x W^T), s the scale of the row, and its sums over halves of blocks.

    x (row, depth) in boxes of 64 x STEP, w (columns, depth) of 256 x STEP, out (row, columns) of
    64 x 256, of which the first `heads` x 64 columns are heads and the first `turned` of those
    rotate by the angles cos, sin (tokens, 32). sums (row / 64, heads, 64) float32.
    """
    dtype: gl.constexpr = x_desc.dtype
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    x_smem = gl.allocate_shared_memory(dtype, [2 * SLOTS, 64, STEP], x_desc.layout)
    w_smem = gl.allocate_shared_memory(dtype, [SLOTS, 256, STEP], w_desc.layout)
    out_smem = gl.allocate_shared_memory(dtype, [2, 64, 256], out_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(ready.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=2)
    fence_async_shared()
    smem = (x_smem, w_smem)
    bars = (ready, empty)
    work = (
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
    )
    feed = (x_desc, w_desc, row_tiles, column_tiles, depth)
    gl.warp_specialize(
        [
            (_consume, (0, smem, bars, out_smem, work, STEP, SLOTS, BAND)),
            (_consume, (1, smem, bars, out_smem, work, STEP, SLOTS, BAND)),
            (_produce, (smem, bars, feed, STEP, SLOTS, BAND)),
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
        and x.shape[1] % STEP == 0
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
    processors: int,
) -> tuple[Tensor, Tensor]:
    """-> (projected (rows, columns), block means (block, heads, HEAD_DIM) float32).

    x (rows, depth), weight (columns, depth), scale (rows,) float32, rotation (cos, sin), each
    (tokens, HEAD_DIM / 2) float32; `heads` counts all heads, of which the first `turned` rotate.
    """
    rows, depth = x.shape
    columns = weight.shape[0]
    out = x.new_empty(rows, columns)
    sums = torch.empty(rows // BLOCK, 2, heads, HEAD_DIM, dtype=torch.float32, device=x.device)
    row_tiles, column_tiles = rows // BLOCK, -(-columns // COLUMNS)
    boxes = [
        TensorDescriptor(tensor, list(tensor.shape), [tensor.stride(0), 1], box, SWIZZLED)
        for tensor, box in ((x, [64, STEP]), (weight, [COLUMNS, STEP]), (out, [64, COLUMNS]))
    ]
    project[(min(processors, row_tiles * column_tiles),)](
        *boxes,
        scale,
        *rotation,
        sums,
        row_tiles,
        column_tiles,
        depth,
        tokens,
        heads,
        turned,
        STEP,
        SLOTS,
        BAND,
        num_warps=4,
    )
    return out, sums.sum(dim=1) * (1 / BLOCK)
