"""Hopper (compute capability 9.0) product added to the residual stream, with the next norm's sums.

The matrix product of `hopper_linear.py`. The producer also fetches the tile of the residual; the
consumers add to it where it lies in shared memory, and sum the squares of what they write.
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

from mosaic_core.attention.kernels.hopper_linear import (
    _fetch,
    _next,
    _place,
    _product,
    _ring,
    boxes,
    step,
)
from mosaic_core.attention.kernels.launching import enqueue

ROWS = 128
COLUMNS = 256
SLOTS = 3
GROUPED_COLUMNS = 128  # in int8: two products and their sum have to fit the registers
GROUPED_SLOTS = 5
BAND = 16


@gluon.jit
def _produce(smem, bars, held, feed, SLOTS: gl.constexpr, BAND: gl.constexpr):
    operands, x_desc, row_tiles, column_tiles, depth = feed
    x_smem, x_ready, x_empty = held
    step: gl.constexpr = smem[0].shape[2]
    width: gl.constexpr = x_smem.shape[2]
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    x_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        for start in range(0, depth, step):
            _fetch(smem, bars, operands, row_tile * 128, column_tile * width, start, slot, phase)
            slot, phase = _next(slot, phase, SLOTS)
            if start == step:  # the operands of the first products come first
                for half in gl.static_range(2):
                    mbarrier.wait(x_empty.index(half), x_phase ^ 1)
                    mbarrier.expect(x_ready.index(half), 64 * width * 2)
                    tma.async_copy_global_to_shared(
                        x_desc,
                        [row_tile * 128 + half * 64, column_tile * width],
                        x_ready.index(half),
                        x_smem.index(half),
                    )
        x_phase ^= 1


@gluon.jit
def _grouped_product(
    half: gl.constexpr, smem, bars, scale_at, rows, slot, phase, depth, SLOTS: gl.constexpr
):
    """`_product` (64, 128) of int8 operands whose rows have a scale for each step of depth.

    `scale_at` points at those of the first step, (64,), `rows` before those of the next. Two
    steps at a time: one is scaled while the other multiplies, and nothing is in flight at the
    end of the loop.
    """
    x_smem, w_smem = smem
    ready, empty = bars
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    total = gl.zeros([64, 128], gl.float32, layout)
    blank = gl.zeros([64, 128], gl.int32, layout)
    for _ in range(0, depth, 256):
        one_scale = gl.load(scale_at)
        two_scale = gl.load(scale_at + rows)
        scale_at += 2 * rows
        mbarrier.wait(ready.index(slot), phase)
        w = w_smem.index(slot).permute((1, 0))
        one = warpgroup_mma(x_smem.index(slot * 2 + half), w, blank, use_acc=False, is_async=True)
        next_slot, next_phase = _next(slot, phase, SLOTS)
        mbarrier.wait(ready.index(next_slot), next_phase)
        w = w_smem.index(next_slot).permute((1, 0))
        x = x_smem.index(next_slot * 2 + half)
        two = warpgroup_mma(x, w, blank, use_acc=False, is_async=True)
        one = warpgroup_mma_wait(1, deps=(one,))
        mbarrier.arrive(empty.index(slot), count=1)
        total += one.to(gl.float32) * gl.expand_dims(one_scale, 1)
        two = warpgroup_mma_wait(0, deps=(two,))
        mbarrier.arrive(empty.index(next_slot), count=1)
        total += two.to(gl.float32) * gl.expand_dims(two_scale, 1)
        slot, phase = _next(next_slot, next_phase, SLOTS)
    return total, slot, phase


@gluon.jit
def _consume(
    half: gl.constexpr,
    smem,
    bars,
    held,
    work,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    x_desc, scales, sums, rows, row_tiles, column_tiles, depth = work
    x_smem, x_ready, x_empty = held
    a_scale, w_scale = scales
    width: gl.constexpr = x_smem.shape[2]
    # Depth of one matrix instruction: 32 bytes.
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        [3, 0], [4, 1], [16, width, 256 // smem[0].dtype.primitive_bitwidth]
    )
    lines = gl.arange(0, 64, gl.SliceLayout(1, layout))
    columns = gl.arange(0, width, gl.SliceLayout(0, layout))
    staging = x_smem.index(half)
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    x_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        if smem[0].dtype == gl.int8:
            factor = gl.load(w_scale + column_tile * width + columns)
            at = a_scale + first_row + lines
            total, slot, phase = _grouped_product(
                half, smem, bars, at, rows, slot, phase, depth, SLOTS
            )
            total *= gl.expand_dims(factor, 0)
        else:
            total, slot, phase = _product(half, smem, bars, slot, phase, depth, SLOTS)
        mbarrier.wait(x_ready.index(half), x_phase)
        total += staging.load(layout).to(gl.float32)
        gl.store(sums + column_tile * rows + first_row + lines, gl.sum(total * total, axis=1))
        staging.store(total.to(staging.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(x_desc, [first_row, column_tile * width], staging)
        tma.store_wait(0)
        mbarrier.arrive(x_empty.index(half), count=1)
        x_phase ^= 1


@gluon.jit(do_not_specialize=["rows", "row_tiles", "column_tiles", "depth"])
def add_product(
    a_desc,
    w_desc,
    x_desc,
    a_scale,
    w_scale,
    sums,
    rows,
    row_tiles,
    column_tiles,
    depth,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    """x += a W^T in place, and the sums of squares of its rows over each tile of columns.

    a (row, depth) in boxes of 64 x step, w (column, depth) of width x step, a step of LINE bytes;
    x (row, column) of 64 x width, a width of 256; sums (column / width, row) float32. Rows are a
    multiple of 128, columns of the width, depth of two steps. For int8 a and w the width is 128,
    a_scale (depth / 128, row) and w_scale (column,) float32 multiply; they are not read otherwise.
    """
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    smem, bars = _ring(a_desc, w_desc, SLOTS)
    x_smem = gl.allocate_shared_memory(x_desc.dtype, [2, 64, x_desc.block_shape[1]], x_desc.layout)
    x_ready = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    x_empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    for half in gl.static_range(2):
        mbarrier.init(x_ready.index(half), count=1)
        mbarrier.init(x_empty.index(half), count=1)
    fence_async_shared()
    held = (x_smem, x_ready, x_empty)
    work = (x_desc, (a_scale, w_scale), sums, rows, row_tiles, column_tiles, depth)
    feed = ((a_desc, w_desc), x_desc, row_tiles, column_tiles, depth)
    gl.warp_specialize(
        [
            (_consume, (0, smem, bars, held, work, SLOTS, BAND)),
            (_consume, (1, smem, bars, held, work, SLOTS, BAND)),
            (_produce, (smem, bars, held, feed, SLOTS, BAND)),
        ],
        [4, 1],
        [240, 24],
    )


def fits(x: Tensor, a: Tensor) -> bool:
    """Whether this kernel computes these sizes."""
    width = COLUMNS if a.element_size() == 2 else GROUPED_COLUMNS
    return (
        x.element_size() == 2
        and a.element_size() <= 2
        and x.shape[0] % ROWS == 0
        and x.shape[1] % width == 0
        and a.shape[1] % (2 * step(a)) == 0
        and x.is_contiguous()
        and a.is_contiguous()
    )


def launch(
    x: Tensor,
    a: Tensor,
    weight: Tensor,
    scales: tuple[Tensor, Tensor] | None,
    *,
    processors: int,
) -> Tensor:
    """x (rows, columns) += a (rows, depth) W^T -> sums of squares (parts of a row, rows).

    `scales` as of `residual.add_product`.
    """
    rows, columns = x.shape
    width, slots = (COLUMNS, SLOTS) if scales is None else (GROUPED_COLUMNS, GROUPED_SLOTS)
    row_tiles, column_tiles = rows // ROWS, columns // width
    sums = torch.empty(column_tiles, rows, dtype=torch.float32, device=x.device)
    enqueue(add_product, (min(processors, row_tiles * column_tiles),))(
        boxes(a, 64, step(a)),
        boxes(weight, width, step(a)),
        boxes(x, 64, width),
        *(scales or (sums, sums)),
        sums,
        rows,
        row_tiles,
        column_tiles,
        a.shape[1],
        slots,
        BAND,
        num_warps=4,
    )
    return sums
