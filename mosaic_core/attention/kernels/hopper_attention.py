"""Hopper (compute capability 9.0) attention: one producer warp feeds several consumer warpgroups.

The work of `attention.py` for head size 64 and blocks of 128 tokens. The producer copies query,
key and value tiles with the tensor memory accelerator; each consumer owns 64 query rows and keeps
the scores of one key block, its running softmax and its output in registers. Consumers run free
of each other, so that the exponentials of one hide behind the matrix products of another.
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

from mosaic_core.attention.kernels.compressed import LOG2E

BLOCK = 128  # tokens of one sparse block
HEAD_DIM = 64
SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


@dataclass(frozen=True)
class Tuning:
    """How the work is cut: consumers, keys of a tile, ring slots; no value depends on it.

    `units` consumers (2 to 4) take 64 query rows of a head each, on the same keys;
    `overlap` starts the next scores before this tile's exponentials; `mixed` computes one
    exponential in four without the special-function units; `in_registers` keeps the queries there.
    """

    units: int = 2
    keys: int = 128
    slots: int = 4
    overlap: bool = True
    mixed: bool = False
    in_registers: bool = True
    ordered: bool = False
    registers: int = 240

# exp2 on four values, the last by a cubic on the multiply-add units: the special-function units
# alone would take as long as the matrix products (16 against 4096 operations per clock). The
# cubic is the minimax fit on [-1/2, 1/2], relative error 1e-4, below half a step of float16.
MIXED_EXP2 = gl.constexpr("""
{
.reg .f32 x, whole, part, p;
.reg .b32 bits, low;
ex2.approx.ftz.f32 $0, $4;
ex2.approx.ftz.f32 $1, $5;
ex2.approx.ftz.f32 $2, $6;
max.ftz.f32 x, $7, 0fC2FC0000;
add.rn.ftz.f32 whole, x, 0f4B400000;
sub.rn.ftz.f32 part, whole, 0f4B400000;
sub.rn.ftz.f32 part, x, part;
fma.rn.ftz.f32 p, part, 0f3D61FBB0, 0f3E786F0D;
fma.rn.ftz.f32 p, p, part, 0f3F31798D;
fma.rn.ftz.f32 p, p, part, 0f3F7FFB49;
mov.b32 bits, whole;
shl.b32 bits, bits, 23;
mov.b32 low, p;
add.s32 bits, bits, low;
mov.b32 $3, bits;
}
""")


@gluon.jit
def _next(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot` in a ring, and its phase."""
    wrapped = slot + 1 == SLOTS
    return gl.where(wrapped, 0, slot + 1), phase ^ wrapped.to(gl.int32)


@gluon.jit
def _exp2(x, MIXED: gl.constexpr):
    if MIXED:
        return gl.inline_asm_elementwise(
            MIXED_EXP2, "=f,=f,=f,=f,f,f,f,f", [x], dtype=gl.float32, is_pure=True, pack=4
        )
    return gl.exp2(x)


@gluon.jit
def _probabilities(scores, row_max, row_sum, scale, MIXED: gl.constexpr):
    """One online-softmax step -> (exp2 of the shifted scores, new max, new sum, old's factor)."""
    new_max = gl.maximum(row_max, gl.max(scores, axis=1) * scale)
    factor = gl.exp2(row_max - new_max)
    p = _exp2(scores * scale - gl.expand_dims(new_max, 1), MIXED)
    return p, new_max, row_sum * factor + gl.sum(p, axis=1), factor


@gluon.jit
def _attend(
    queries, k_smem, v_smem, k_ready, k_empty, v_ready, v_empty, turns, slot, phase, turn,
    count, scale, CONSUMER: gl.constexpr, UNITS: gl.constexpr,
    KEYS: gl.constexpr, SLOTS: gl.constexpr, OVERLAP: gl.constexpr, MIXED: gl.constexpr,
    ORDERED: gl.constexpr,
):
    """Softmax attention over the next `count` key tiles -> (output, 1 / row sum, ring state).

    With OVERLAP the scores of the next tile are on their way while this tile's values are summed.
    With ORDERED the consumers issue their products in turn.
    """
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    out_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, out_layout, 2)
    rows: gl.constexpr = gl.SliceLayout(1, score_layout)
    out_rows: gl.constexpr = gl.SliceLayout(1, out_layout)
    dtype: gl.constexpr = k_smem.dtype

    row_max = gl.full([64], float("-inf"), gl.float32, rows)
    row_sum = gl.zeros([64], gl.float32, rows)
    out = gl.zeros([64, 64], gl.float32, out_layout)
    blank = gl.zeros([64, KEYS], gl.float32, score_layout)
    if OVERLAP:
        mbarrier.wait(k_ready.index(slot), phase)
        keys = k_smem.index(slot).permute((1, 0))
        scores = warpgroup_mma(queries, keys, blank, use_acc=False, is_async=True)
        scores = warpgroup_mma_wait(0, deps=(scores,))
        mbarrier.arrive(k_empty.index(slot), count=1)
        p, row_max, row_sum, factor = _probabilities(scores, row_max, row_sum, scale, MIXED)
        operand = gl.convert_layout(p.to(dtype), p_layout)
        for _ in range(count - 1):
            next_slot, next_phase = _next(slot, phase, SLOTS)
            mbarrier.wait(k_ready.index(next_slot), next_phase)
            mbarrier.wait(v_ready.index(slot), phase)
            if ORDERED:
                mbarrier.wait(turns.index(CONSUMER), turn)
            keys = k_smem.index(next_slot).permute((1, 0))
            scores = warpgroup_mma(queries, keys, blank, use_acc=False, is_async=True)
            out = warpgroup_mma(operand, v_smem.index(slot), out, is_async=True)
            if ORDERED:
                mbarrier.arrive(turns.index((CONSUMER + 1) % UNITS), count=1)
                turn ^= 1
            scores = warpgroup_mma_wait(1, deps=(scores,))
            mbarrier.arrive(k_empty.index(next_slot), count=1)
            p, row_max, row_sum, factor = _probabilities(scores, row_max, row_sum, scale, MIXED)
            out = warpgroup_mma_wait(0, deps=(out,))
            mbarrier.arrive(v_empty.index(slot), count=1)
            out = out * gl.expand_dims(gl.convert_layout(factor, out_rows), 1)
            operand = gl.convert_layout(p.to(dtype), p_layout)
            slot = next_slot
            phase = next_phase
        mbarrier.wait(v_ready.index(slot), phase)
        out = warpgroup_mma(operand, v_smem.index(slot), out, is_async=True)
        out = warpgroup_mma_wait(0, deps=(out,))
        mbarrier.arrive(v_empty.index(slot), count=1)
        slot, phase = _next(slot, phase, SLOTS)
    else:
        for _ in range(count):
            mbarrier.wait(k_ready.index(slot), phase)
            keys = k_smem.index(slot).permute((1, 0))
            scores = warpgroup_mma(queries, keys, blank, use_acc=False, is_async=True)
            scores = warpgroup_mma_wait(0, deps=(scores,))
            mbarrier.arrive(k_empty.index(slot), count=1)
            p, row_max, row_sum, factor = _probabilities(scores, row_max, row_sum, scale, MIXED)
            out = out * gl.expand_dims(gl.convert_layout(factor, out_rows), 1)
            operand = gl.convert_layout(p.to(dtype), p_layout)
            mbarrier.wait(v_ready.index(slot), phase)
            out = warpgroup_mma(operand, v_smem.index(slot), out, is_async=True)
            out = warpgroup_mma_wait(0, deps=(out,))
            mbarrier.arrive(v_empty.index(slot), count=1)
            slot, phase = _next(slot, phase, SLOTS)
    return out, gl.convert_layout(1.0 / row_sum, out_rows), slot, phase, turn


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
def _place(tile, blocks, kv_heads, GROUP: gl.constexpr, UNITS: gl.constexpr):
    """Tile number -> (member, key head, query block, first unit).

    The 2 GROUP units of a query block and key head are two halves of the block for each query
    head. Neighbouring tiles share their key head: its keys and values stay in the L2 cache.
    """
    parts: gl.constexpr = (2 * GROUP + UNITS - 1) // UNITS
    block = (tile // parts) % blocks
    kv_head = (tile // (parts * blocks)) % kv_heads
    member = tile // (parts * blocks * kv_heads)
    return member, kv_head, block, tile % parts * UNITS


@gluon.jit
def _drain(ready, empty, slot, phase, count, SLOTS: gl.constexpr):
    """Let `count` key and value tiles pass without work."""
    k_ready, v_ready = ready
    k_empty, v_empty = empty
    for _ in range(count):
        mbarrier.wait(k_ready.index(slot), phase)
        mbarrier.arrive(k_empty.index(slot), count=1)
        mbarrier.wait(v_ready.index(slot), phase)
        mbarrier.arrive(v_empty.index(slot), count=1)
        slot, phase = _next(slot, phase, SLOTS)
    return slot, phase


@gluon.jit
def _unit(
    q_smem, held, smem, bars, work, first_row, block_id, head, slot, phase, turn,
    CONSUMER: gl.constexpr, UNITS: gl.constexpr, GROUP: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr, OVERLAP: gl.constexpr,
    MIXED: gl.constexpr, IN_REGISTERS: gl.constexpr, ORDERED: gl.constexpr,
):
    """64 rows of one head: both streams of keys, the gates, the result. -> ring state."""
    out_desc, gates, block_out, kv_heads, local_blocks, listed, gate_stride, scale = work
    k_smem, v_smem = smem
    k_ready, k_empty, v_ready, v_empty, turns = bars
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    per_block: gl.constexpr = 128 // KEYS
    queries = q_smem
    if IN_REGISTERS:
        queries = q_smem.load(gl.DotOperandLayout(0, score_layout, 2))
    local, inverse, slot, phase, turn = _attend(
        queries, k_smem, v_smem, k_ready, k_empty, v_ready, v_empty, turns, slot, phase, turn,
        local_blocks * per_block, scale, CONSUMER, UNITS, KEYS, SLOTS, OVERLAP, MIXED, ORDERED,
    )
    rows = first_row + gl.arange(0, 64, gl.SliceLayout(1, layout))
    gate, _compressed, _selected = _gates(gates, rows, head, gate_stride)
    held.store((local * gl.expand_dims(gate * inverse, 1)).to(held.dtype))  # frees registers
    selected, inverse, slot, phase, turn = _attend(
        queries, k_smem, v_smem, k_ready, k_empty, v_ready, v_empty, turns, slot, phase, turn,
        listed * per_block, scale, CONSUMER, UNITS, KEYS, SLOTS, OVERLAP, MIXED, ORDERED,
    )
    columns = gl.arange(0, 64, gl.SliceLayout(0, layout))
    at = block_out + (block_id.to(gl.int64) * (kv_heads * GROUP) + head) * 64 + columns
    compressed = gl.expand_dims(gl.load(at).to(gl.float32), 0)
    _local, gate, other = _gates(gates, rows, head, gate_stride)
    total = selected * gl.expand_dims(other * inverse, 1)
    total += gl.expand_dims(gate, 1) * compressed + held.load(layout).to(gl.float32)
    q_smem.store(total.to(q_smem.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(out_desc, [first_row, head * 64], q_smem)
    tma.store_wait(0)
    return slot, phase, turn


@gluon.jit
def _consume(
    consumer: gl.constexpr, smem, bars, places, work,
    GROUP: gl.constexpr, UNITS: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr,
    OVERLAP: gl.constexpr, MIXED: gl.constexpr, IN_REGISTERS: gl.constexpr, ORDERED: gl.constexpr,
):
    """One consumer: its unit of every tile of this program."""
    tiles, blocks, kv_heads = places
    local_blocks = work[4]
    listed = work[5]
    q_all, held_all, k_smem, v_smem = smem
    q_ready, q_empty, k_ready, k_empty, v_ready, v_empty, turns = bars
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    q_slot = gl.to_tensor(0)
    q_phase = gl.to_tensor(0)
    turn = gl.to_tensor(1 if consumer == 0 else 0)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        member, kv_head, block, unit = _place(tile, blocks, kv_heads, GROUP, UNITS)
        unit += consumer
        block_id = member * blocks + block
        mbarrier.wait(q_ready.index(q_slot), q_phase)
        if unit < 2 * GROUP:
            slot, phase, turn = _unit(
                q_all.index(q_slot * UNITS + consumer), held_all.index(consumer),
                (k_smem, v_smem), (k_ready, k_empty, v_ready, v_empty, turns), work,
                block_id * 128 + 64 * (unit % 2), block_id, kv_head * GROUP + unit // 2,
                slot, phase, turn, consumer, UNITS, GROUP, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED,
            )
        else:
            slot, phase = _drain(
                (k_ready, v_ready), (k_empty, v_empty), slot, phase,
                (local_blocks + listed) * (128 // KEYS), SLOTS,
            )
        mbarrier.arrive(q_empty.index(q_slot), count=1)
        q_slot, q_phase = _next(q_slot, q_phase, 2)


@gluon.jit
def _produce(
    smem, bars, places, feed,
    GROUP: gl.constexpr, UNITS: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr,
):
    """Copy each tile's queries, then its key and value tiles in order: local, then listed."""
    tiles, blocks, kv_heads = places
    q_desc, k_desc, v_desc, selection, local_blocks, listed = feed
    q_all, _held, k_smem, v_smem = smem
    q_ready, q_empty, k_ready, k_empty, v_ready, v_empty, _turns = bars
    slot = gl.to_tensor(0)
    phase = gl.to_tensor(0)
    q_slot = gl.to_tensor(0)
    q_phase = gl.to_tensor(0)
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        member, kv_head, block, first_unit = _place(tile, blocks, kv_heads, GROUP, UNITS)
        row0 = (member * blocks + block) * 128
        mbarrier.wait(q_empty.index(q_slot), q_phase ^ 1)
        mbarrier.expect(q_ready.index(q_slot), UNITS * 64 * 64 * 2)
        for consumer in gl.static_range(UNITS):
            unit = gl.minimum(first_unit + consumer, 2 * GROUP - 1)
            tma.async_copy_global_to_shared(
                q_desc, [row0 + 64 * (unit % 2), (kv_head * GROUP + unit // 2) * 64],
                q_ready.index(q_slot), q_all.index(q_slot * UNITS + consumer),
            )
        q_slot, q_phase = _next(q_slot, q_phase, 2)
        list_at = ((member * kv_heads + kv_head).to(gl.int64) * blocks + block) * listed
        first_local = block // local_blocks * local_blocks
        chosen = gl.load(selection + list_at)
        for step in range(local_blocks + listed):
            key_block = gl.where(step < local_blocks, first_local + step, chosen)
            ahead = gl.minimum(gl.maximum(step + 1 - local_blocks, 0), listed - 1)
            chosen = gl.load(selection + list_at + ahead)
            for part in gl.static_range(128 // KEYS):
                row = (member * blocks + key_block) * 128 + part * KEYS
                mbarrier.wait(k_empty.index(slot), phase ^ 1)
                mbarrier.expect(k_ready.index(slot), KEYS * 64 * 2)
                tma.async_copy_global_to_shared(
                    k_desc, [row, kv_head * 64], k_ready.index(slot), k_smem.index(slot)
                )
                mbarrier.wait(v_empty.index(slot), phase ^ 1)
                mbarrier.expect(v_ready.index(slot), KEYS * 64 * 2)
                tma.async_copy_global_to_shared(
                    v_desc, [row, kv_head * 64], v_ready.index(slot), v_smem.index(slot)
                )
                slot, phase = _next(slot, phase, SLOTS)


SIZE_ARGUMENTS = ["tiles", "blocks", "kv_heads", "local_blocks", "listed", "gate_stride"]


@gluon.jit(do_not_specialize=SIZE_ARGUMENTS)  # one compilation for every level and batch
def fused_attention(
    q_desc, k_desc, v_desc, out_desc, gates, block_out, selection,
    tiles, blocks, kv_heads, local_blocks, listed, gate_stride, scale,
    GROUP: gl.constexpr, UNITS: gl.constexpr,
    KEYS: gl.constexpr, SLOTS: gl.constexpr, OVERLAP: gl.constexpr, MIXED: gl.constexpr,
    IN_REGISTERS: gl.constexpr, ORDERED: gl.constexpr, CONSUMER_REGISTERS: gl.constexpr,
):
    """All three branches, gated and summed, for tiles of UNITS x 64 rows of one query block.

    Rows are (member, token) flattened, columns head * 64. q_desc and out_desc have boxes of
    64 x 64, k_desc and v_desc of KEYS x 64. gates (row, heads x 3) are logits with `gate_stride`
    from row to row, block_out (member, block, heads, 64) the compressed branch, selection
    (member, kv_heads, block, listed) int32; the softmax scale includes log2(e). `local_blocks`
    blocks of 128 make a local run.
    """
    dtype: gl.constexpr = q_desc.dtype
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_all = gl.allocate_shared_memory(dtype, [2 * UNITS, 64, 64], q_desc.layout)
    held_all = gl.allocate_shared_memory(dtype, [UNITS, 64, 64], q_desc.layout)
    k_smem = gl.allocate_shared_memory(dtype, [SLOTS, KEYS, 64], k_desc.layout)
    v_smem = gl.allocate_shared_memory(dtype, [SLOTS, KEYS, 64], k_desc.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    k_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    k_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    turns = gl.allocate_shared_memory(gl.int64, [UNITS, 1], barrier)
    for unit in gl.static_range(UNITS):
        mbarrier.init(turns.index(unit), count=1)
    for slot in gl.static_range(2):
        mbarrier.init(q_ready.index(slot), count=1)
        mbarrier.init(q_empty.index(slot), count=UNITS)
    for slot in gl.static_range(SLOTS):
        mbarrier.init(k_ready.index(slot), count=1)
        mbarrier.init(v_ready.index(slot), count=1)
        mbarrier.init(k_empty.index(slot), count=UNITS)
        mbarrier.init(v_empty.index(slot), count=UNITS)
    fence_async_shared()

    smem = (q_all, held_all, k_smem, v_smem)
    bars = (q_ready, q_empty, k_ready, k_empty, v_ready, v_empty, turns)
    places = (tiles, blocks, kv_heads)
    work = (out_desc, gates, block_out, kv_heads, local_blocks, listed, gate_stride, scale)
    feed = (q_desc, k_desc, v_desc, selection, local_blocks, listed)
    if UNITS == 2:
        gl.warp_specialize(
            [
                (_consume, (0, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (1, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_produce, (smem, bars, places, feed, GROUP, UNITS, KEYS, SLOTS)),
            ],
            [4, 1],
            [CONSUMER_REGISTERS, 24],
        )
    elif UNITS == 3:
        gl.warp_specialize(
            [
                (_consume, (0, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (1, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (2, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_produce, (smem, bars, places, feed, GROUP, UNITS, KEYS, SLOTS)),
            ],
            [4, 4, 1],
            [CONSUMER_REGISTERS, CONSUMER_REGISTERS, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (0, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (1, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (2, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_consume, (3, smem, bars, places, work, GROUP, UNITS, KEYS, SLOTS, OVERLAP, MIXED, IN_REGISTERS, ORDERED)),
                (_produce, (smem, bars, places, feed, GROUP, UNITS, KEYS, SLOTS)),
            ],
            [4, 4, 4, 1],
            [CONSUMER_REGISTERS, CONSUMER_REGISTERS, CONSUMER_REGISTERS, 24],
        )


def fits(q: Tensor, k: Tensor, v: Tensor, local_block: int, sparse_block: int) -> bool:
    """Whether this kernel computes these sizes and strides (see `_matrix`)."""
    group = q.shape[2] // k.shape[2]
    return (
        q.element_size() == 2
        and q.shape[3] == HEAD_DIM
        and sparse_block == BLOCK
        and local_block % BLOCK == 0
        and group % 2 == 0
        and all(_is_matrix(x) for x in (q, k, v))
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
    tuning: Tuning,
) -> Tensor:
    """All three branches into `out` on a GPU of `processors` multiprocessors.

    Arguments as of `portable_attention.fused_attention`; q, k, v and out must satisfy `fits`,
    gates must have heads and branches contiguous.
    """
    members, tokens, heads, _ = q.shape
    kv_heads, blocks = k.shape[2], tokens // BLOCK
    parts = -(-2 * heads // kv_heads // tuning.units)
    tiles = members * blocks * kv_heads * parts
    fused_attention[(min(processors, tiles),)](
        _matrix(q, 64), _matrix(k, tuning.keys), _matrix(v, tuning.keys), _matrix(out, 64),
        gates, block_out, selection, tiles, blocks, kv_heads, local_block // BLOCK,
        selection.shape[3], gates.stride(1), LOG2E * HEAD_DIM**-0.5, heads // kv_heads,
        tuning.units, tuning.keys, tuning.slots, tuning.overlap, tuning.mixed,
        tuning.in_registers, tuning.ordered, tuning.registers, num_warps=4,
    )
    return out
