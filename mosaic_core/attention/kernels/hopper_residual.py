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

ROWS = 128
COLUMNS = 256
SLOTS = 3
BAND = 16


@gluon.jit
def _produce(smem, bars, held, feed, SLOTS: gl.constexpr, BAND: gl.constexpr):
    operands, x_desc, row_tiles, column_tiles, depth = feed
    x_smem, x_ready, x_empty = held
    step: gl.constexpr = smem[0].shape[2]
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    x_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        for start in range(0, depth, step):
            _fetch(smem, bars, operands, row_tile * 128, column_tile * 256, start, slot, phase)
            slot, phase = _next(slot, phase, SLOTS)
            if start == step:  # the operands of the first products come first
                for half in gl.static_range(2):
                    mbarrier.wait(x_empty.index(half), x_phase ^ 1)
                    mbarrier.expect(x_ready.index(half), 64 * 256 * 2)
                    tma.async_copy_global_to_shared(
                        x_desc,
                        [row_tile * 128 + half * 64, column_tile * 256],
                        x_ready.index(half),
                        x_smem.index(half),
                    )
        x_phase ^= 1


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
    x_desc, sums, rows, row_tiles, column_tiles, depth = work
    x_smem, x_ready, x_empty = held
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    lines = gl.arange(0, 64, gl.SliceLayout(1, wide))
    staging = x_smem.index(half)
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    x_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        total, slot, phase = _product(half, smem, bars, slot, phase, depth, SLOTS)
        mbarrier.wait(x_ready.index(half), x_phase)
        total += staging.load(wide).to(gl.float32)
        gl.store(sums + column_tile * rows + first_row + lines, gl.sum(total * total, axis=1))
        staging.store(total.to(staging.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(x_desc, [first_row, column_tile * 256], staging)
        tma.store_wait(0)
        mbarrier.arrive(x_empty.index(half), count=1)
        x_phase ^= 1


@gluon.jit(do_not_specialize=["rows", "row_tiles", "column_tiles", "depth"])
def add_product(
    a_desc,
    w_desc,
    x_desc,
    sums,
    rows,
    row_tiles,
    column_tiles,
    depth,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
):
    """x += a W^T in place, and the sums of squares of its rows over each 256 columns.

    a (row, depth) in boxes of 64 x step, w (column, depth) of 256 x step, a step of LINE bytes; x
    (row, column) of 64 x 256; sums (column / 256, row) float32. Rows are a multiple of 128,
    columns of 256, depth of the step and at least two steps.
    """
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    smem, bars = _ring(a_desc, w_desc, SLOTS)
    x_smem = gl.allocate_shared_memory(x_desc.dtype, [2, 64, 256], x_desc.layout)
    x_ready = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    x_empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    for half in gl.static_range(2):
        mbarrier.init(x_ready.index(half), count=1)
        mbarrier.init(x_empty.index(half), count=1)
    fence_async_shared()
    held = (x_smem, x_ready, x_empty)
    work = (x_desc, sums, rows, row_tiles, column_tiles, depth)
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
    return (
        x.element_size() == a.element_size() == 2
        and x.shape[0] % ROWS == 0
        and x.shape[1] % COLUMNS == 0
        and a.shape[1] % step(a) == 0
        and a.shape[1] >= 2 * step(a)
        and x.is_contiguous()
        and a.is_contiguous()
    )


def launch(x: Tensor, a: Tensor, weight: Tensor, *, processors: int) -> Tensor:
    """x (rows, columns) += a (rows, depth) W^T -> sums of squares (parts of a row, rows)."""
    rows, columns = x.shape
    row_tiles, column_tiles = rows // ROWS, columns // COLUMNS
    sums = torch.empty(column_tiles, rows, dtype=torch.float32, device=x.device)
    add_product[(min(processors, row_tiles * column_tiles),)](
        boxes(a, 64, step(a)),
        boxes(weight, COLUMNS, step(a)),
        boxes(x, 64, COLUMNS),
        sums,
        rows,
        row_tiles,
        column_tiles,
        a.shape[1],
        SLOTS,
        BAND,
        num_warps=4,
    )
    return sums
