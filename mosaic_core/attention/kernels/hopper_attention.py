"""Hopper (compute capability 9.0) attention: one producer warp feeds two consumer warpgroups.

The work of `portable_attention.py` for head size 64 and blocks of 128 tokens. The producer copies
query, key and value tiles with the tensor memory accelerator; each consumer owns 64 query rows of
one head. It starts the scores of the next key tile before the exponentials of this one, so that
both run at once; the two consumers drift apart by the depth of the ring and share the rest.
"""

from __future__ import annotations

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

BLOCK = 128  # tokens of one sparse block, keys of one tile
HEAD_DIM = 64
SLOTS = 4  # key and value tiles in the ring
REGISTERS = 240  # of a consumer thread; the producer needs few
SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


@gluon.jit
def _next(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot` in a ring, and its phase."""
    wrapped = slot + 1 == SLOTS
    return gl.where(wrapped, 0, slot + 1), phase ^ wrapped.to(gl.int32)


@gluon.jit
def _probabilities(scores, row_max, row_sum, scale):
    """One online-softmax step -> (exp2 of the shifted scores, new max, new sum, old's factor)."""
    new_max = gl.maximum(row_max, gl.max(scores, axis=1) * scale)
    factor = gl.exp2(row_max - new_max)
    p = gl.exp2(scores * scale - gl.expand_dims(new_max, 1))
    return p, new_max, row_sum * factor + gl.sum(p, axis=1), factor


@gluon.jit
def _attend(queries, ring, slot, phase, count, scale, SLOTS: gl.constexpr):
    """Softmax attention over the next `count` key tiles -> (output, 1 / row sum, ring state)."""
    k_smem, v_smem, k_ready, k_empty, v_ready, v_empty = ring
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    out_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, out_layout, 2)
    rows: gl.constexpr = gl.SliceLayout(1, score_layout)
    out_rows: gl.constexpr = gl.SliceLayout(1, out_layout)
    dtype: gl.constexpr = k_smem.dtype

    row_max = gl.full([64], float("-inf"), gl.float32, rows)
    row_sum = gl.zeros([64], gl.float32, rows)
    out = gl.zeros([64, 64], gl.float32, out_layout)
    blank = gl.zeros([64, 128], gl.float32, score_layout)
    mbarrier.wait(k_ready.index(slot), phase)
    keys = k_smem.index(slot).permute((1, 0))
    scores = warpgroup_mma(queries, keys, blank, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, deps=(scores,))
    mbarrier.arrive(k_empty.index(slot), count=1)
    p, row_max, row_sum, factor = _probabilities(scores, row_max, row_sum, scale)
    operand = gl.convert_layout(p.to(dtype), p_layout)
    for _ in range(count - 1):
        next_slot, next_phase = _next(slot, phase, SLOTS)
        mbarrier.wait(k_ready.index(next_slot), next_phase)
        keys = k_smem.index(next_slot).permute((1, 0))
        scores = warpgroup_mma(queries, keys, blank, use_acc=False, is_async=True)
        mbarrier.wait(v_ready.index(slot), phase)
        out = warpgroup_mma(operand, v_smem.index(slot), out, is_async=True)
        scores = warpgroup_mma_wait(1, deps=(scores,))
        mbarrier.arrive(k_empty.index(next_slot), count=1)
        p, row_max, row_sum, factor = _probabilities(scores, row_max, row_sum, scale)
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
    return out, gl.convert_layout(1.0 / row_sum, out_rows), slot, phase


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
    """Tile number -> (member, key head, query block, query head).

    Neighbouring tiles share their key head, so that its keys and values stay in the L2 cache.
    """
    block = (tile // GROUP) % blocks
    kv_head = (tile // (GROUP * blocks)) % kv_heads
    member = tile // (GROUP * blocks * kv_heads)
    return member, kv_head, block, kv_head * GROUP + tile % GROUP


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
    """One consumer: 64 rows of every tile of this program, through both streams of keys."""
    out_desc, gates, block_out, tiles, blocks, kv_heads, local_blocks, listed, stride, scale = work
    q_ready, q_empty = queue
    held = held_all.index(half)
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
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
        q_smem = q_all.index(q_slot * 2 + half)
        mbarrier.wait(q_ready.index(q_slot), q_phase)
        queries = q_smem.load(gl.DotOperandLayout(0, score_layout, 2))
        local, inverse, slot, phase = _attend(
            queries, ring, slot, phase, local_blocks, scale, SLOTS
        )
        gate, _compressed, _selected = _gates(gates, first_row + lines, head, stride)
        held.store((local * gl.expand_dims(gate * inverse, 1)).to(held.dtype))  # frees registers
        selected, inverse, slot, phase = _attend(queries, ring, slot, phase, listed, scale, SLOTS)
        at = block_out + (block_id.to(gl.int64) * (kv_heads * GROUP) + head) * 64 + columns
        compressed = gl.expand_dims(gl.load(at).to(gl.float32), 0)
        _local, gate, other = _gates(gates, first_row + lines, head, stride)
        total = selected * gl.expand_dims(other * inverse, 1)
        total += gl.expand_dims(gate, 1) * compressed + held.load(layout).to(gl.float32)
        q_smem.store(total.to(q_smem.dtype))
        fence_async_shared()
        tma.async_copy_shared_to_global(out_desc, [first_row, head * 64], q_smem)
        tma.store_wait(0)
        mbarrier.arrive(q_empty.index(q_slot), count=1)
        q_slot, q_phase = _next(q_slot, q_phase, 2)


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
        mbarrier.expect(q_ready.index(q_slot), 2 * 64 * 64 * 2)
        for half in gl.static_range(2):
            tma.async_copy_global_to_shared(
                q_desc,
                [row0 + 64 * half, head * 64],
                q_ready.index(q_slot),
                q_all.index(q_slot * 2 + half),
            )
        q_slot, q_phase = _next(q_slot, q_phase, 2)
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
    """All three branches, gated and summed, for tiles of one query block of one head.

    Rows are (member, token) flattened, columns head * 64. q_desc and out_desc have boxes of
    64 x 64, k_desc and v_desc of 128 x 64. gates (row, heads x 3) are logits with `gate_stride`
    from row to row, block_out (member, block, heads, 64) the compressed branch, selection
    (member, kv_heads, block, listed) int32; the softmax scale includes log2(e). `local_blocks`
    blocks of 128 make a local run.
    """
    dtype: gl.constexpr = q_desc.dtype
    barrier: gl.constexpr = mbarrier.MBarrierLayout()
    q_all = gl.allocate_shared_memory(dtype, [4, 64, 64], q_desc.layout)
    held_all = gl.allocate_shared_memory(dtype, [2, 64, 64], q_desc.layout)
    k_smem = gl.allocate_shared_memory(dtype, [SLOTS, 128, 64], k_desc.layout)
    v_smem = gl.allocate_shared_memory(dtype, [SLOTS, 128, 64], k_desc.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], barrier)
    k_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    k_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    v_empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], barrier)
    for slot in gl.static_range(2):
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
    work = (
        out_desc,
        gates,
        block_out,
        tiles,
        blocks,
        kv_heads,
        local_blocks,
        listed,
        gate_stride,
        scale,
    )
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
    """Whether this kernel computes these sizes and strides (see `_matrix`)."""
    return (
        q.element_size() == 2
        and q.shape[3] == HEAD_DIM
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
    """All three branches into `out` on a GPU of `processors` multiprocessors.

    Arguments as of `portable_attention.fused_attention`; q, k, v, gates and
    out must satisfy `fits`.
    """
    members, tokens, heads, _ = q.shape
    kv_heads, blocks = k.shape[2], tokens // BLOCK
    tiles = members * blocks * heads
    fused_attention[(min(processors, tiles),)](
        _matrix(q, 64),
        _matrix(k, BLOCK),
        _matrix(v, BLOCK),
        _matrix(out, 64),
        gates,
        block_out,
        selection,
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
    return out
