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

LOG2E = gl.constexpr(1.4426950408889634)
TILE = 128  # rows and hidden columns of an output tile
STEP = 64  # depth of one ring slot: 128 bytes, one swizzle line
SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


@dataclass(frozen=True)
class Tuning:
    """Ring slots, row tiles of a band and registers of a consumer; no value depends on it."""

    slots: int = 4
    band: int = 32
    registers: int = 240


@gluon.jit
def _next(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot` in a ring, and its phase."""
    wrapped = slot + 1 == SLOTS
    return gl.where(wrapped, 0, slot + 1), phase ^ wrapped.to(gl.int32)


@gluon.jit
def _place(tile, row_tiles, column_tiles, BAND: gl.constexpr):
    """Tile number -> (row tile, column tile), BAND row tiles at a time for the L2 cache."""
    per_band = BAND * column_tiles
    band = tile // per_band
    rows = gl.minimum(row_tiles - band * BAND, BAND)
    within = tile - band * per_band
    return band * BAND + within % rows, within // rows


@gluon.jit
def _produce(smem, bars, feed, STEP: gl.constexpr, SLOTS: gl.constexpr, BAND: gl.constexpr):
    x_desc, w_desc, row_tiles, column_tiles, depth = feed
    x_smem, w_smem = smem
    ready, empty = bars
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        for start in range(0, depth, STEP):
            mbarrier.wait(empty.index(slot), phase ^ 1)
            mbarrier.expect(ready.index(slot), 3 * 128 * STEP * 2)
            bar = ready.index(slot)
            for half in gl.static_range(2):
                tma.async_copy_global_to_shared(
                    x_desc,
                    [row_tile * 128 + half * 64, start],
                    bar,
                    x_smem.index(slot * 2 + half),
                )
            tma.async_copy_global_to_shared(
                w_desc, [column_tile * 256, start], bar, w_smem.index(slot)
            )
            slot, phase = _next(slot, phase, SLOTS)


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
    out_desc, row_scale, bias, row_tiles, column_tiles, depth, tokens, bias_stride = work
    x_smem, w_smem = smem
    ready, empty = bars
    staging = out_smem.index(half)
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    columns = gl.arange(0, 128, gl.SliceLayout(0, layout))
    lines = gl.arange(0, 64, gl.SliceLayout(1, layout))
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = _place(tile, row_tiles, column_tiles, BAND)
        first_row = row_tile * 128 + half * 64
        both = gl.zeros([64, 256], gl.float32, wide)
        for start in range(0, depth, STEP):
            mbarrier.wait(ready.index(slot), phase)
            w = w_smem.index(slot).permute((1, 0))
            both = warpgroup_mma(x_smem.index(slot * 2 + half), w, both, is_async=True)
            both = warpgroup_mma_wait(1, deps=(both,))
            before = gl.where(slot == 0, SLOTS, slot) - 1
            mbarrier.arrive(empty.index(before), count=1, pred=start > 0)
            slot, phase = _next(slot, phase, SLOTS)
        both = warpgroup_mma_wait(0, deps=(both,))
        mbarrier.arrive(empty.index(gl.where(slot == 0, SLOTS, slot) - 1), count=1)

        gate, value = gl.split(both.reshape([64, 2, 128]).permute((0, 2, 1)))
        gate = gl.convert_layout(gate, layout)  # the registers are in place already
        value = gl.convert_layout(value, layout)
        scale = gl.expand_dims(gl.load(row_scale + first_row + lines), 1)
        member = first_row // tokens
        shift = gl.load(bias + member.to(gl.int64) * bias_stride + column_tile * 128 + columns)
        gate = gate * scale + gl.expand_dims(shift.to(gl.float32), 0)
        result = gate * (value * scale) / (1.0 + gl.exp2(gate * -LOG2E))
        tma.store_wait(0)
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
    bias,
    row_tiles,
    column_tiles,
    depth,
    tokens,
    bias_stride,
    STEP: gl.constexpr,
    SLOTS: gl.constexpr,
    BAND: gl.constexpr,
    CONSUMER_REGISTERS: gl.constexpr,
):
    """out = silu(s x W1^T + bias) * (s x W3^T), s the scale of the row.

    x (row, depth) in boxes of 64 x STEP; w (2 hidden, depth), 128 rows of W1 and the same 128 of
    W3 by turns, in boxes of 256 x STEP;
    out (row, hidden) in boxes of 64 x 128; row_scale (row,) float32, bias (member, hidden), where
    `tokens` rows make a member. Rows and hidden are multiples of 128, depth of STEP.
    """
    dtype: gl.constexpr = x_desc.dtype
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    x_smem = gl.allocate_shared_memory(dtype, [2 * SLOTS, 64, STEP], x_desc.layout)
    w_smem = gl.allocate_shared_memory(dtype, [SLOTS, 256, STEP], w_desc.layout)
    out_smem = gl.allocate_shared_memory(dtype, [2, 64, 128], out_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(ready.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=2)
    fence_async_shared()
    smem = (x_smem, w_smem)
    bars = (ready, empty)
    work = (out_desc, row_scale, bias, row_tiles, column_tiles, depth, tokens, bias_stride)
    feed = (x_desc, w_desc, row_tiles, column_tiles, depth)
    gl.warp_specialize(
        [
            (_consume, (0, smem, bars, out_smem, work, STEP, SLOTS, BAND)),
            (_consume, (1, smem, bars, out_smem, work, STEP, SLOTS, BAND)),
            (_produce, (smem, bars, feed, STEP, SLOTS, BAND)),
        ],
        [4, 1],
        [CONSUMER_REGISTERS, 24],
    )


def fits(x: Tensor, w13: Tensor, tokens: int) -> bool:
    """Whether this kernel computes these sizes."""
    rows, depth = x.shape
    return (
        x.element_size() == 2
        and rows % TILE == 0
        and tokens % TILE == 0
        and w13.shape[0] % (2 * TILE) == 0
        and depth % STEP == 0
        and x.is_contiguous()
    )


def _boxes(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), [x.stride(0), 1], [rows, columns], SWIZZLED)


def launch(
    x: Tensor,
    w13: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    tokens: int,
    out: Tensor,
    processors: int,
    tuning: Tuning,
) -> Tensor:
    """As `feedforward.swiglu`, on a GPU of `processors` multiprocessors."""
    rows, depth = x.shape
    hidden = w13.shape[0] // 2
    tiles = (rows // TILE) * (hidden // TILE)
    swiglu[(min(processors, tiles),)](
        _boxes(x, 64, STEP),
        _boxes(w13, 2 * TILE, STEP),
        _boxes(out, 64, TILE),
        scale,
        bias,
        rows // TILE,
        hidden // TILE,
        depth,
        tokens,
        bias.stride(0),
        STEP,
        tuning.slots,
        tuning.band,
        tuning.registers,
        num_warps=4,
    )
    return out
