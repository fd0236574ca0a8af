"""Hopper (compute capability 9.0) SwiGLU projection: the product and its gate in one kernel.

One producer warp feeds two consumer warpgroups; each owns 64 rows of a 128 x 128 output tile and
the two products (gate and value) that make it. The consumers drift apart by the depth of the
ring, so that one multiplies while the other applies the gate and writes.
"""

from __future__ import annotations

from dataclasses import dataclass

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

from mosaic_core.attention.kernels.launching import enqueue

LOG2E = gl.constexpr(1.4426950408889634)
TILE = 128  # rows and hidden columns of an output tile
LEAST = gl.constexpr(1e-30)  # stands for the largest magnitude of zeros
LINE = gl.constexpr(128)  # bytes of depth in one ring slot: one swizzle line


@dataclass(frozen=True)
class Tuning:
    """Ring slots, row tiles of a band and registers of a consumer; no value depends on it."""

    slots: int = 4
    band: int = 16
    registers: int = 240


@gluon.jit
def _next(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot` in a ring, and its phase."""
    wrapped = slot + 1 == SLOTS
    return gl.where(wrapped, 0, slot + 1), phase ^ wrapped.to(gl.int32)


@gluon.jit
def _ring(x_desc, w_desc, SLOTS: gl.constexpr):
    """Room for `SLOTS` steps of both operands and their barriers: (x, w), (ready, empty)."""
    x_box: gl.constexpr = x_desc.block_shape
    w_box: gl.constexpr = w_desc.block_shape
    x_smem = gl.allocate_shared_memory(x_desc.dtype, [2 * SLOTS, x_box[0], x_box[1]], x_desc.layout)
    w_smem = gl.allocate_shared_memory(w_desc.dtype, [SLOTS, w_box[0], w_box[1]], w_desc.layout)
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(ready.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=2)
    return (x_smem, w_smem), (ready, empty)


@gluon.jit
def _place(tile, row_tiles, column_tiles, BAND: gl.constexpr):
    """Tile number -> (row tile, column tile), BAND row tiles at a time for the L2 cache."""
    per_band = BAND * column_tiles
    band = tile // per_band
    rows = gl.minimum(row_tiles - band * BAND, BAND)
    within = tile - band * per_band
    return band * BAND + within % rows, within // rows


@gluon.jit
def _fetch(smem, bars, operands, rows, columns, start, slot, phase):
    """Copy one step of both operands into a slot once it is empty; the tile starts at (rows,
    columns) of the result."""
    x_smem, w_smem = smem
    ready, empty = bars
    x_desc, w_desc = operands
    mbarrier.wait(empty.index(slot), phase ^ 1)
    lines: gl.constexpr = 2 * x_smem.shape[1] + w_smem.shape[1]
    mbarrier.expect(ready.index(slot), lines * LINE)
    bar = ready.index(slot)
    for half in gl.static_range(2):
        tma.async_copy_global_to_shared(
            x_desc, [rows + half * 64, start], bar, x_smem.index(slot * 2 + half)
        )
    tma.async_copy_global_to_shared(w_desc, [columns, start], bar, w_smem.index(slot))


@gluon.jit
def _produce(smem, bars, feed, SLOTS: gl.constexpr, BAND: gl.constexpr):
    operands, row_tiles, column_tiles, depth = feed
    step: gl.constexpr = smem[0].shape[2]
    width: gl.constexpr = smem[1].shape[1]
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        for start in range(0, depth, step):
            _fetch(smem, bars, operands, row_tile * 128, column_tile * width, start, slot, phase)
            slot, phase = _next(slot, phase, SLOTS)


@gluon.jit
def _product(half: gl.constexpr, smem, bars, slot, phase, depth, SLOTS: gl.constexpr):
    """The next tile's sums (64, 256) of consumer `half`, float32, and the ring's state."""
    x_smem, w_smem = smem
    ready, empty = bars
    step: gl.constexpr = x_smem.shape[2]
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    total = gl.zeros([64, 256], gl.float32, wide)
    for start in range(0, depth, step):
        mbarrier.wait(ready.index(slot), phase)
        w = w_smem.index(slot).permute((1, 0))
        total = warpgroup_mma(x_smem.index(slot * 2 + half), w, total, is_async=True)
        total = warpgroup_mma_wait(1, deps=(total,))
        before = gl.where(slot == 0, SLOTS, slot) - 1
        mbarrier.arrive(empty.index(before), count=1, pred=start > 0)
        slot, phase = _next(slot, phase, SLOTS)
    total = warpgroup_mma_wait(0, deps=(total,))
    mbarrier.arrive(empty.index(gl.where(slot == 0, SLOTS, slot) - 1), count=1)
    return total, slot, phase


@gluon.jit
def _whole_product(half: gl.constexpr, smem, bars, slot, phase, depth, SLOTS: gl.constexpr):
    """`_product` of int8 operands; Triton has the instruction up to 128 columns only."""
    x_smem, w_smem = smem
    ready, empty = bars
    step: gl.constexpr = x_smem.shape[2]
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    left = gl.zeros([64, 128], gl.int32, layout)
    right = gl.zeros([64, 128], gl.int32, layout)
    for start in range(0, depth, step):
        mbarrier.wait(ready.index(slot), phase)
        x = x_smem.index(slot * 2 + half)
        w = w_smem.index(slot)
        left = warpgroup_mma(x, w.slice(0, 128).permute((1, 0)), left, is_async=True)
        right = warpgroup_mma(x, w.slice(128, 128).permute((1, 0)), right, is_async=True)
        left, right = warpgroup_mma_wait(2, deps=(left, right))
        before = gl.where(slot == 0, SLOTS, slot) - 1
        mbarrier.arrive(empty.index(before), count=1, pred=start > 0)
        slot, phase = _next(slot, phase, SLOTS)
    left, right = warpgroup_mma_wait(0, deps=(left, right))
    mbarrier.arrive(empty.index(gl.where(slot == 0, SLOTS, slot) - 1), count=1)
    both = gl.join(left.to(gl.float32), right.to(gl.float32)).permute((0, 2, 1))
    return gl.convert_layout(both.reshape([64, 256]), wide), slot, phase


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
    out_desc, scales, bias, row_tiles, column_tiles, depth, tokens, bias_stride = work
    row_scale, w_scale, out_scale = scales
    x_smem, _w_smem = smem
    staging = out_smem.index(half)
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    columns = gl.arange(0, 128, gl.SliceLayout(0, layout))
    lines = gl.arange(0, 64, gl.SliceLayout(1, layout))
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        # Loads that the epilogue needs run beside the products.
        scale = gl.expand_dims(gl.load(row_scale + first_row + lines), 1)
        member = first_row // tokens
        shift = gl.load(bias + member.to(gl.int64) * bias_stride + column_tile * 128 + columns)
        if x_smem.dtype == gl.int8:
            both, slot, phase = _whole_product(half, smem, bars, slot, phase, depth, SLOTS)
        else:
            both, slot, phase = _product(half, smem, bars, slot, phase, depth, SLOTS)
        gate, value = gl.split(both.reshape([64, 2, 128]).permute((0, 2, 1)))
        gate = gl.convert_layout(gate, layout)  # the registers are in place already
        value = gl.convert_layout(value, layout)
        if x_smem.dtype == gl.int8:
            at = w_scale + column_tile * 256 + columns
            gate *= gl.expand_dims(gl.load(at), 0)
            value *= gl.expand_dims(gl.load(at + 128), 0)
        gate = gate * scale + gl.expand_dims(shift.to(gl.float32), 0)
        result = gate * (value * scale) / (1.0 + gl.exp2(gate * -LOG2E))
        tma.store_wait(0)
        if staging.dtype == gl.int8:
            largest = gl.maximum(gl.max(gl.abs(result), axis=1), LEAST)
            rows = row_tiles.to(gl.int64) * 128
            gl.store(out_scale + column_tile * rows + first_row + lines, largest / 127.0)
            # The low bits of a float32 near 1.5 x 2^23 are its integer part, rounded to even.
            whole = result * gl.expand_dims(127.0 / largest, 1) + 12582912.0
            staging.store(whole.to(gl.int32, bitcast=True).to(gl.int8))
        else:
            staging.store(result.to(staging.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(out_desc, [first_row, column_tile * 128], staging)
    tma.store_wait(0)


SIZE_ARGUMENTS = ["row_tiles", "column_tiles", "depth", "tokens", "bias_stride"]


@gluon.jit(do_not_specialize=SIZE_ARGUMENTS)  # one compilation for every level and batch
def swiglu(
    x_desc,
    w_desc,
    out_desc,
    row_scale,
    w_scale,
    out_scale,
    bias,
    row_tiles,
    column_tiles,
    depth,
    tokens,
    bias_stride,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
):
    """out = silu(s x W1^T + bias) * (s x W3^T), s the scale of the row.

    x (row, depth) in boxes of 64 x step, a step of LINE bytes; w (2 hidden, depth), 128 rows of
    W1 and the same 128 of W3 by turns, in boxes of 256 x step;
    out (row, hidden) in boxes of 64 x 128; row_scale (row,) float32, bias (member, hidden), where
    `tokens` rows make a member. Rows and hidden are multiples of 128, depth of the step. For int8
    x and w, w_scale (2 hidden,) float32 multiplies the rows of w; for int8 out, out_scale
    (hidden / 128, row) float32 takes its scales. Neither is touched otherwise.
    """
    smem, bars = _ring(x_desc, w_desc, SLOTS)
    out_smem = gl.allocate_shared_memory(out_desc.dtype, [2, 64, 128], out_desc.layout)
    fence_async_shared()
    scales = (row_scale, w_scale, out_scale)
    work = (out_desc, scales, bias, row_tiles, column_tiles, depth, tokens, bias_stride)
    feed = ((x_desc, w_desc), row_tiles, column_tiles, depth)
    gl.warp_specialize(
        [
            (_consume, (0, smem, bars, out_smem, work, SLOTS, BAND)),
            (_consume, (1, smem, bars, out_smem, work, SLOTS, BAND)),
            (_produce, (smem, bars, feed, SLOTS, BAND)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, 24],
    )


def fits(x: Tensor, w13: Tensor, tokens: int) -> bool:
    """Whether this kernel computes these sizes."""
    rows, depth = x.shape
    return (
        x.element_size() <= 2
        and rows % TILE == 0
        and tokens % TILE == 0
        and w13.shape[0] % (2 * TILE) == 0
        and depth % step(x) == 0
        and x.is_contiguous()
    )


def step(x: Tensor) -> int:
    """Elements of one ring slot along the depth."""
    return int(LINE) // x.element_size()


def boxes(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """The matrix x for copies of `rows` x `columns`."""
    swizzled = gl.NVMMASharedLayout(
        swizzle_byte_width=128, element_bitwidth=8 * x.element_size(), rank=2
    )
    return TensorDescriptor(x, list(x.shape), [x.stride(0), 1], [rows, columns], swizzled)


def launch(
    x: Tensor,
    w13: Tensor,
    scale: Tensor,
    w_scale: Tensor | None,
    bias: Tensor,
    *,
    tokens: int,
    out: Tensor,
    out_scale: Tensor | None,
    processors: int,
    tuning: Tuning,
) -> Tensor:
    """As `feedforward.swiglu`, on a GPU of `processors` multiprocessors."""
    rows, depth = x.shape
    hidden = w13.shape[0] // 2
    tiles = (rows // TILE) * (hidden // TILE)
    enqueue(swiglu, (min(processors, tiles),))(
        boxes(x, 64, step(x)),
        boxes(w13, 2 * TILE, step(x)),
        boxes(out, 64, TILE),
        scale,
        scale if w_scale is None else w_scale,
        scale if out_scale is None else out_scale,
        bias,
        rows // TILE,
        hidden // TILE,
        depth,
        tokens,
        bias.stride(0),
        tuning.slots,
        tuning.band,
        tuning.registers,
        num_warps=4,
    )
    return out
