"""Hopper (compute capability 9.0) attention: one producer warp feeds two consumer warpgroups.

The work of `portable_attention.py` for head size 64 and blocks of 128 tokens. The producer copies
query, key and value tiles with the tensor memory accelerator; each consumer owns 64 query rows of
two heads that share their keys, so that a tile is fetched once for both. It starts the scores of
one head while the values of the other are multiplied; the two consumers drift apart by the depth
of the ring.

Softmax needs no running maximum: every row is shifted by its maximum over its first local tile,
and weights and values are bfloat16, whose exponents reach 2^127. A row whose sum leaves
(LEAST, MOST) all the same is marked, and `portable_attention` does its tile again.
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

from mosaic_core.attention.kernels.compressed import LOG2E
from mosaic_core.attention.kernels.launching import enqueue

BLOCK = 128  # tokens of one sparse block, keys of one tile
HEAD_DIM = 64
SLOTS = 4  # key and value tiles in the ring
Q_SLOTS = gl.constexpr(2)  # query tiles: one in use, one on its way
LEAST = gl.constexpr(2.0**-100)  # row sums in here are exact to rounding
MOST = gl.constexpr(2.0**100)  # times a value of 2^16 still a float32
REGISTERS = 240  # of a consumer thread; the producer needs few
SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


@gluon.jit
def _next(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot` in a ring, and its phase."""
    wrapped = slot + 1 == SLOTS
    return gl.where(wrapped, 0, slot + 1), phase ^ wrapped.to(gl.int32)


@gluon.jit
def _weights(scores, shift, scale):
    """exp2 of the shifted scores, and their sums over the columns that a thread holds, (64, 4)."""
    p = gl.exp2(scores * scale - gl.expand_dims(shift, 1))
    return p, gl.sum(gl.sum(p.reshape([64, 16, 4, 2]), axis=3), axis=1)


@gluon.jit
def _attend(
    queries,
    ring,
    slot,
    phase,
    count,
    scale,
    shifts,
    FIRST: gl.constexpr,
    SLOTS: gl.constexpr,
):
    """Softmax attention of two heads over the next `count` key tiles they share.

    -> (outputs, row sums, shifts, ring state), the first three as pairs. `FIRST` makes the shifts.
    """
    k_smem, v_smem, k_ready, k_empty, v_ready, v_empty = ring
    one, two = queries
    one_shift, two_shift = shifts
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    out_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, out_layout, 2)
    out_rows: gl.constexpr = gl.SliceLayout(1, out_layout)
    dtype: gl.constexpr = v_smem.dtype

    one_out = gl.zeros([64, 64], gl.float32, out_layout)
    two_out = gl.zeros([64, 64], gl.float32, out_layout)
    blank = gl.zeros([64, 128], gl.float32, score_layout)
    mbarrier.wait(k_ready.index(slot), phase)
    keys = k_smem.index(slot).permute((1, 0))
    if FIRST:
        scores = warpgroup_mma(two, keys, blank, use_acc=False, is_async=True)
        scores = warpgroup_mma_wait(0, deps=(scores,))
        two_shift = gl.max(scores, axis=1) * scale
    scores = warpgroup_mma(one, keys, blank, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    if FIRST:
        one_shift = gl.max(scores, axis=1) * scale
    p, one_sum = _weights(scores, one_shift, scale)
    two_sum = gl.sum(gl.sum(blank.reshape([64, 16, 4, 2]), axis=3), axis=1)
    operand = gl.convert_layout(p.to(dtype), p_layout)
    for _ in range(count - 1):
        keys = k_smem.index(slot).permute((1, 0))
        scores = warpgroup_mma(two, keys, blank, use_acc=False, is_async=True)
        mbarrier.wait(v_ready.index(slot), phase)
        one_out = warpgroup_mma(operand, v_smem.index(slot), one_out, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(scores,))
        mbarrier.arrive(k_empty.index(slot), count=1)
        p, part = _weights(scores, two_shift, scale)
        two_sum += part
        one_out = warpgroup_mma_wait(0, deps=(one_out,))
        operand = gl.convert_layout(p.to(dtype), p_layout)
        next_slot, next_phase = _next(slot, phase, SLOTS)
        mbarrier.wait(k_ready.index(next_slot), next_phase)
        keys = k_smem.index(next_slot).permute((1, 0))
        scores = warpgroup_mma(one, keys, blank, use_acc=False, is_async=True)
        two_out = warpgroup_mma(operand, v_smem.index(slot), two_out, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(scores,))
        p, part = _weights(scores, one_shift, scale)
        one_sum += part
        two_out = warpgroup_mma_wait(0, deps=(two_out,))
        mbarrier.arrive(v_empty.index(slot), count=1)
        operand = gl.convert_layout(p.to(dtype), p_layout)
        slot = next_slot
        phase = next_phase
    keys = k_smem.index(slot).permute((1, 0))
    scores = warpgroup_mma(two, keys, blank, use_acc=False, is_async=True)
    mbarrier.wait(v_ready.index(slot), phase)
    one_out = warpgroup_mma(operand, v_smem.index(slot), one_out, is_async=True)
    scores, one_out = warpgroup_mma_wait(0, deps=(scores, one_out))
    mbarrier.arrive(k_empty.index(slot), count=1)
    p, part = _weights(scores, two_shift, scale)
    two_sum += part
    operand = gl.convert_layout(p.to(dtype), p_layout)
    two_out = warpgroup_mma(operand, v_smem.index(slot), two_out, is_async=True)
    two_out = warpgroup_mma_wait(0, deps=(two_out,))
    mbarrier.arrive(v_empty.index(slot), count=1)
    slot, phase = _next(slot, phase, SLOTS)
    one_sum = gl.convert_layout(gl.sum(one_sum, axis=1), out_rows)
    two_sum = gl.convert_layout(gl.sum(two_sum, axis=1), out_rows)
    return (one_out, two_out), (one_sum, two_sum), (one_shift, two_shift), slot, phase


@gluon.jit
def _gates(gates, rows, head, stride):
    """Softmax over the three branch logits of `rows` -> (local, compressed, selected)."""
    at = gates + rows.to(gl.int64) * stride + head * 3
    local = gl.load(at).to(gl.float32)
    compressed = gl.load(at + 1).to(gl.float32)
    selected = gl.load(at + 2).to(gl.float32)
    top = gl.maximum(gl.maximum(local, compressed), selected)
    local = gl.exp(local - top)
    compressed = gl.exp(compressed - top)
    selected = gl.exp(selected - top)
    total = local + compressed + selected
    return local / total, compressed / total, selected / total


@gluon.jit
def _place(tile, blocks, kv_heads, GROUP: gl.constexpr):
    """Tile number -> (member, key head, query block, first query head).

    Neighbouring tiles share their key head, so that its keys and values stay in the L2 cache.
    """
    pairs: gl.constexpr = GROUP // 2
    block = (tile // pairs) % blocks
    kv_head = (tile // (pairs * blocks)) % kv_heads
    member = tile // (pairs * blocks * kv_heads)
    return member, kv_head, block, kv_head * GROUP + tile % pairs * 2


@gluon.jit
def _mark(suspects, at, row_sum):
    """Note the rows whose sum has left the range in which the fixed shift is exact."""
    fine = (row_sum > LEAST) & (row_sum < MOST)
    gl.store(suspects + at, gl.where(fine, 0, 1).to(gl.int8))


@gluon.jit
def _consume(
    half: gl.constexpr,
    q_all,
    held_all,
    queue,
    ring,
    work,
    GROUP: gl.constexpr,
    SLOTS: gl.constexpr,
):
    """One consumer: 64 rows of two heads of every tile, through both streams of keys."""
    out_desc, gates, block_out, suspects, sizes, scale = work
    tiles, blocks, kv_heads, local_blocks, listed, stride = sizes
    q_ready, q_empty = queue
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, score_layout, 2)
    lines = gl.arange(0, 64, gl.SliceLayout(1, layout))
    columns = gl.arange(0, 64, gl.SliceLayout(0, layout))
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    q_slot = gl.to_tensor(0)
    q_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        member, _kv_head, block, head = _place(tile, blocks, kv_heads, GROUP)
        block_id = member * blocks + block
        first_row = block_id * 128 + 64 * half
        mbarrier.wait(q_ready.index(q_slot), q_phase)
        one = q_all.index(q_slot * 4 + half)
        two = q_all.index(q_slot * 4 + 2 + half)
        queries = (one.load(operand), two.load(operand))
        weights = (
            _gates(gates, first_row + lines, head, stride),
            _gates(gates, first_row + lines, head + 1, stride),
        )
        blank = gl.zeros([64], gl.float32, gl.SliceLayout(1, score_layout))
        local, sums, shifts, slot, phase = _attend(
            queries, ring, slot, phase, local_blocks, scale, (blank, blank), True, SLOTS
        )
        mark_at = tile * 512 + 64 * half + lines
        for turn in gl.static_range(2):
            gate = weights[turn][0]
            _mark(suspects, mark_at + turn * 256, sums[turn])
            held = held_all.index(turn * 2 + half)
            held.store((local[turn] * gl.expand_dims(gate / sums[turn], 1)).to(held.dtype))
        selected, sums, shifts, slot, phase = _attend(
            queries, ring, slot, phase, listed, scale, shifts, False, SLOTS
        )
        for turn in gl.static_range(2):
            _mark(suspects, mark_at + turn * 256 + 128, sums[turn])
            at = (block_id.to(gl.int64) * (kv_heads * GROUP) + head + turn) * 64 + columns
            compressed = gl.expand_dims(gl.load(block_out + at).to(gl.float32), 0)
            gate = weights[turn][1]
            total = selected[turn] * gl.expand_dims(weights[turn][2] / sums[turn], 1)
            held = held_all.index(turn * 2 + half)
            total += gl.expand_dims(gate, 1) * compressed + held.load(layout).to(gl.float32)
            staging = q_all.index(q_slot * 4 + turn * 2 + half)
            staging.store(total.to(staging.dtype))
        fence_async_shared()
        for turn in gl.static_range(2):
            staging = q_all.index(q_slot * 4 + turn * 2 + half)
            tma.async_copy_shared_to_global(out_desc, [first_row, (head + turn) * 64], staging)
        tma.store_wait(0)
        mbarrier.arrive(q_empty.index(q_slot), count=1)
        q_slot, q_phase = _next(q_slot, q_phase, Q_SLOTS)


@gluon.jit
def _produce(q_all, queue, ring, feed, GROUP: gl.constexpr, SLOTS: gl.constexpr):
    """Copy each tile's queries, then its key and value tiles in order: local, then listed."""
    q_desc, k_desc, v_desc, selection, tiles, blocks, kv_heads, local_blocks, listed = feed
    q_ready, q_empty = queue
    k_smem, v_smem, k_ready, k_empty, v_ready, v_empty = ring
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    q_slot = gl.to_tensor(0)
    q_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        member, kv_head, block, head = _place(tile, blocks, kv_heads, GROUP)
        row0 = (member * blocks + block) * 128
        mbarrier.wait(q_empty.index(q_slot), q_phase ^ 1)
        mbarrier.expect(q_ready.index(q_slot), 4 * 64 * 64 * 2)
        for part in gl.static_range(4):
            tma.async_copy_global_to_shared(
                q_desc,
                [row0 + 64 * (part % 2), (head + part // 2) * 64],
                q_ready.index(q_slot),
                q_all.index(q_slot * 4 + part),
            )
        q_slot, q_phase = _next(q_slot, q_phase, Q_SLOTS)
        list_at = ((member * kv_heads + kv_head).to(gl.int64) * blocks + block) * listed
        first_local = block // local_blocks * local_blocks
        chosen = gl.load(selection + list_at)
        for step in range(local_blocks + listed):
            key_block = gl.where(step < local_blocks, first_local + step, chosen)
            ahead = gl.minimum(gl.maximum(step + 1 - local_blocks, 0), listed - 1)
            chosen = gl.load(selection + list_at + ahead)
            row = (member * blocks + key_block) * 128
            mbarrier.wait(k_empty.index(slot), phase ^ 1)
            mbarrier.expect(k_ready.index(slot), 128 * 64 * 2)
            tma.async_copy_global_to_shared(
                k_desc, [row, kv_head * 64], k_ready.index(slot), k_smem.index(slot)
            )
            mbarrier.wait(v_empty.index(slot), phase ^ 1)
            mbarrier.expect(v_ready.index(slot), 128 * 64 * 2)
            tma.async_copy_global_to_shared(
                v_desc, [row, kv_head * 64], v_ready.index(slot), v_smem.index(slot)
            )
            slot, phase = _next(slot, phase, SLOTS)


SIZE_ARGUMENTS = ["tiles", "blocks", "kv_heads", "local_blocks", "listed", "gate_stride"]


@gluon.jit(do_not_specialize=SIZE_ARGUMENTS)  # one compilation for every level and batch
def fused_attention(
    q_desc,
    k_desc,
    v_desc,
    out_desc,
    gates,
    block_out,
    selection,
    suspects,
    tiles,
    blocks,
    kv_heads,
    local_blocks,
    listed,
    gate_stride,
    scale,
    GROUP: gl.constexpr,
    SLOTS: gl.constexpr,
    REGISTERS: gl.constexpr,
):
    """All three branches, gated and summed, for tiles of one query block of two heads.

    Rows are (member, token) flattened, columns head * 64. q_desc and out_desc have boxes of
    64 x 64, k_desc and v_desc of 128 x 64. gates (row, heads x 3) are logits with `gate_stride`
    from row to row, block_out (member, block, heads, 64) the compressed branch, selection
    (member, kv_heads, block, listed) int32; the softmax scale includes log2(e). `local_blocks`
    blocks of 128 make a local run. suspects (tile, head of the two, branch, 128) int8 takes a
    1 for every row whose sum in the local (0) or selected (1) branch is out of range.
    """
    dtype: gl.constexpr = q_desc.dtype
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_all = gl.allocate_shared_memory(dtype, [4 * Q_SLOTS, 64, 64], q_desc.layout)
    held_all = gl.allocate_shared_memory(dtype, [4, 64, 64], q_desc.layout)
    k_smem = gl.allocate_shared_memory(dtype, [SLOTS, 128, 64], k_desc.layout)
    v_smem = gl.allocate_shared_memory(v_desc.dtype, [SLOTS, 128, 64], v_desc.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [Q_SLOTS, 1], barrier)
    q_empty = gl.allocate_shared_memory(gl.int64, [Q_SLOTS, 1], barrier)
    k_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    k_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    for slot in gl.static_range(Q_SLOTS):
        mbarrier.init(q_ready.index(slot), count=1)
        mbarrier.init(q_empty.index(slot), count=2)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(k_ready.index(slot), count=1)
        mbarrier.init(v_ready.index(slot), count=1)
        mbarrier.init(k_empty.index(slot), count=2)
        mbarrier.init(v_empty.index(slot), count=2)
    fence_async_shared()

    queue = (q_ready, q_empty)
    ring = (k_smem, v_smem, k_ready, k_empty, v_ready, v_empty)
    sizes = (tiles, blocks, kv_heads, local_blocks, listed, gate_stride)
    work = (out_desc, gates, block_out, suspects, sizes, scale)
    feed = (q_desc, k_desc, v_desc, selection, tiles, blocks, kv_heads, local_blocks, listed)
    gl.warp_specialize(
        [
            (_consume, (0, q_all, held_all, queue, ring, work, GROUP, SLOTS)),
            (_consume, (1, q_all, held_all, queue, ring, work, GROUP, SLOTS)),
            (_produce, (q_all, queue, ring, feed, GROUP, SLOTS)),
        ],
        [4, 1],
        [REGISTERS, 24],
    )


def fits(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, local_block: int, sparse_block: int
) -> bool:
    """Whether this kernel computes these sizes, types and strides (see `_matrix`)."""
    return (
        q.element_size() == 2
        and v.dtype == torch.bfloat16
        and q.shape[3] == HEAD_DIM
        and q.shape[2] // k.shape[2] % 2 == 0
        and sparse_block == BLOCK
        and local_block % BLOCK == 0
        and all(_is_matrix(x) for x in (q, k, v))
        and gates.stride()[2:] == (3, 1)
        and (gates.shape[0] == 1 or gates.stride(0) == gates.shape[1] * gates.stride(1))
    )


def _is_matrix(x: Tensor) -> bool:
    """Whether (member, token, head, HEAD_DIM) is a matrix with one stride between tokens."""
    member, token, head, element = x.stride()
    dense = element == 1 and (head == HEAD_DIM or x.shape[2] == 1)
    joined = member == x.shape[1] * token or x.shape[0] == 1
    return dense and joined and token % 8 == 0 and x.data_ptr() % 16 == 0


def _matrix(x: Tensor, rows: int) -> TensorDescriptor:
    """x (member, token, head, HEAD_DIM) as (row, column), copied in boxes of `rows` x HEAD_DIM."""
    shape = [x.shape[0] * x.shape[1], x.shape[2] * HEAD_DIM]
    return TensorDescriptor(x, shape, [x.stride(1), 1], [rows, HEAD_DIM], SWIZZLED)


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    block_out: Tensor,
    selection: Tensor,
    *,
    local_block: int,
    out: Tensor,
    processors: int,
) -> Tensor:
    """All three branches into `out` on a GPU of `processors` multiprocessors -> suspects.

    Arguments as of `portable_attention.fused_attention`; q, k, v, gates and out must satisfy
    `fits`. The suspects are tiles to do again, as that function takes them.
    """
    members, tokens, heads, _ = q.shape
    kv_heads, blocks = k.shape[2], tokens // BLOCK
    tiles = members * blocks * heads // 2
    suspects = torch.empty(2 * tiles, 2 * BLOCK, dtype=torch.int8, device=q.device)
    enqueue(fused_attention, (min(processors, tiles),))(
        _matrix(q, 64),
        _matrix(k, BLOCK),
        _matrix(v, BLOCK),
        _matrix(out, 64),
        gates,
        block_out,
        selection,
        suspects,
        tiles,
        blocks,
        kv_heads,
        local_block // BLOCK,
        selection.shape[3],
        gates.stride(1),
        LOG2E * HEAD_DIM**-0.5,
        heads // kv_heads,
        SLOTS,
        REGISTERS,
        num_warps=4,
    )
    return suspects
