"""The three branches, gated and summed in one pass over the queries: any GPU, any size.

A tile is one query block of one head. Local keys stream past first, then the listed
blocks; each branch has its own running softmax, and the compressed branch arrives finished.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels import choices
from mosaic_core.attention.kernels.choices import Choice
from mosaic_core.attention.kernels.compressed import LOG2E
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.launching import enqueue

KEYS_AT_ONCE = 64
FILTERED = 64  # tiles whose flags one program looks through


@triton.jit
def _absorb(
    queries,
    k,
    v,
    k_stride,
    v_stride,
    keys,
    allowed,
    elements,
    real,
    carried,
    scale,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take one tile of keys into the running softmax (row max, row sum, output)."""
    row_max, row_sum, total = carried
    k_at = k + keys[:, None].to(tl.int64) * k_stride + elements[None, :]
    v_at = v + keys[:, None].to(tl.int64) * v_stride + elements[None, :]
    if MASKED:
        inside = (tl.max(allowed.to(tl.int32), axis=0) > 0)[:, None] & real[None, :]
        ks = tl.load(k_at, mask=inside, other=0.0)
        vs = tl.load(v_at, mask=inside, other=0.0)
    else:
        ks = tl.load(k_at)
        vs = tl.load(v_at)
    scores = tl.dot(queries, tl.trans(ks), input_precision=PRECISION) * scale
    if MASKED:
        scores = tl.where(allowed, scores, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(scores, axis=1))
    shift = new_max
    if MASKED:  # a row that has met no key yet
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
    factor = tl.exp2(row_max - shift)
    p = tl.exp2(scores - shift[:, None])
    row_sum = row_sum * factor + tl.sum(p, axis=1)
    total = total * factor[:, None] + tl.dot(p.to(vs.dtype), vs, input_precision=PRECISION)
    return new_max, row_sum, total


@triton.jit
def _tile(
    pid,
    q,
    k,
    v,
    gates,
    block_out,
    selection,
    out,
    q_member,
    q_token,
    q_head,
    k_member,
    k_token,
    k_head,
    v_member,
    v_token,
    v_head,
    g_member,
    g_token,
    g_head,
    tokens,
    blocks,
    block,
    local,
    listed,
    head_dim,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tile number `pid`: members, key heads, blocks, then the heads of a group."""
    group: tl.constexpr = HEADS // KV_HEADS
    head_in_group = pid % group
    place = (pid // group) % blocks
    kv_head = (pid // (group * blocks)) % KV_HEADS
    member = (pid // (group * blocks * KV_HEADS)).to(tl.int64)
    head = kv_head * group + head_in_group
    lines = tl.arange(0, ROWS)
    elements = tl.arange(0, DIM)
    real = elements < head_dim
    present = lines < block
    rows = place * block + lines
    wide = rows.to(tl.int64)
    inside = present[:, None] & real[None, :]
    q_at = q + member * q_member + head.to(tl.int64) * q_head + wide[:, None] * q_token
    queries = tl.load(q_at + elements[None, :], mask=inside, other=0.0)
    k_own = k + member * k_member + kv_head.to(tl.int64) * k_head
    v_own = v + member * v_member + kv_head.to(tl.int64) * v_head

    first = (place * block) // local * local
    last = tl.minimum((((place + 1) * block - 1) // local + 1) * local, tokens)
    row_max = tl.full([ROWS], float("-inf"), tl.float32)
    row_sum = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(first, last, KEYS):
        keys = start + tl.arange(0, KEYS)
        same_run = rows[:, None] // local == keys[None, :] // local
        allowed = (same_run | (lines >= block)[:, None]) & (keys < last)[None, :]
        row_max, row_sum, total = _absorb(
            queries,
            k_own,
            v_own,
            k_token,
            v_token,
            keys,
            allowed,
            elements,
            real,
            (row_max, row_sum, total),
            scale,
            MASKED,
            PRECISION,
        )
    g_at = gates + member * g_member + wide * g_token + head * g_head
    g_local = tl.load(g_at, mask=present, other=0.0).to(tl.float32)
    g_block = tl.load(g_at + 1, mask=present, other=0.0).to(tl.float32)
    g_listed = tl.load(g_at + 2, mask=present, other=0.0).to(tl.float32)
    top = tl.maximum(tl.maximum(g_local, g_block), g_listed)
    g_local, g_block, g_listed = (
        tl.exp(g_local - top),
        tl.exp(g_block - top),
        tl.exp(g_listed - top),
    )
    g_sum = g_local + g_block + g_listed
    mixed = total * (g_local / (g_sum * row_sum))[:, None]

    row_max = tl.full([ROWS], float("-inf"), tl.float32)
    row_sum = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, DIM], tl.float32)
    list_at = selection + ((member * KV_HEADS + kv_head) * blocks + place) * listed
    per_block = tl.cdiv(block, KEYS)
    for turn in range(listed * per_block):
        chosen = tl.load(list_at + turn // per_block)
        within = (turn % per_block) * KEYS + tl.arange(0, KEYS)
        keys = chosen * block + within
        allowed = (within < block)[None, :] & (lines >= 0)[:, None]
        row_max, row_sum, total = _absorb(
            queries,
            k_own,
            v_own,
            k_token,
            v_token,
            keys,
            allowed,
            elements,
            real,
            (row_max, row_sum, total),
            scale,
            MASKED,
            PRECISION,
        )
    mixed += total * (g_listed / (g_sum * row_sum))[:, None]
    block_at = block_out + ((member * blocks + place) * HEADS + head) * head_dim + elements
    compressed = tl.load(block_at, mask=real, other=0.0).to(tl.float32)
    mixed += (g_block / g_sum)[:, None] * compressed[None, :]
    to = out + ((member * tokens + wide[:, None]) * HEADS + head) * head_dim + elements[None, :]
    tl.store(to, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _fused(
    suspects,
    tiles,
    q,
    k,
    v,
    gates,
    block_out,
    selection,
    out,
    q_member,
    q_token,
    q_head,
    k_member,
    k_token,
    k_head,
    v_member,
    v_token,
    v_head,
    g_member,
    g_token,
    g_head,
    tokens,
    blocks,
    block,
    local,
    listed,
    head_dim,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
    FLAGS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """AT_ONCE tiles; with FLAGS above 0 only those with a flag in suspects (tile, FLAGS)."""
    first = tl.program_id(0) * AT_ONCE
    wanted = 1
    if FLAGS > 0:
        some = (first + tl.arange(0, AT_ONCE)).to(tl.int64)
        flags = suspects + some[:, None] * FLAGS + tl.arange(0, FLAGS)[None, :]
        wanted = tl.sum(tl.load(flags, mask=(some < tiles)[:, None], other=0).to(tl.int32))
    if wanted > 0:
        for tile in range(first, tl.minimum(first + AT_ONCE, tiles)):
            marked = 1
            if FLAGS > 0:
                own = suspects + tl.cast(tile, tl.int64) * FLAGS + tl.arange(0, FLAGS)
                marked = tl.sum(tl.load(own).to(tl.int32))
            if marked > 0:
                _tile(
                    tile,
                    q,
                    k,
                    v,
                    gates,
                    block_out,
                    selection,
                    out,
                    q_member,
                    q_token,
                    q_head,
                    k_member,
                    k_token,
                    k_head,
                    v_member,
                    v_token,
                    v_head,
                    g_member,
                    g_token,
                    g_head,
                    tokens,
                    blocks,
                    block,
                    local,
                    listed,
                    head_dim,
                    scale,
                    HEADS,
                    KV_HEADS,
                    ROWS,
                    KEYS,
                    DIM,
                    MASKED,
                    PRECISION,
                )


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    block_out: Tensor,
    selection: Tensor,
    *,
    local_block: int,
    sparse_block: int,
    out: Tensor,
    suspects: Tensor | None = None,
    choice: Choice | None = None,
) -> Tensor:
    """All three branches into `out` (member, token, head, head_dim), contiguous.

    q, gates (member, token, heads, head_dim or 3), k, v (member, token, kv_heads, head_dim) may
    be views with any strides but the last, 1. `block_out` (member, block, heads, head_dim) is the
    compressed branch, `selection` (member, kv_heads, block, listed) int32, each index in range.
    With `suspects` (member x kv_head x block x head of a group, flags) int8 only tiles with a flag
    are computed. `choice` (default: what suits the GPU) gives warps and stages.
    """
    gpu = describe(q.device)
    choice = choice or choices.choice(gpu, "attention")
    members, tokens, heads, head_dim = q.shape
    kv_heads, blocks = k.shape[2], tokens // sparse_block
    rows = max(16, triton.next_power_of_2(sparse_block))
    dim = max(16, triton.next_power_of_2(head_dim))
    keys = min(KEYS_AT_ONCE, rows)
    wide = dim * q.element_size()
    even = rows == sparse_block and dim == head_dim
    aligned = local_block % sparse_block == 0 and sparse_block % keys == 0
    tiles = heads * blocks * members
    flags, at_once = (0, 1) if suspects is None else (suspects.shape[1], FILTERED)
    enqueue(_fused, (triton.cdiv(tiles, at_once),))(
        q if suspects is None else suspects,
        tiles,
        q,
        k,
        v,
        gates,
        block_out,
        selection,
        out,
        q.stride(0),
        q.stride(1),
        q.stride(2),
        k.stride(0),
        k.stride(1),
        k.stride(2),
        v.stride(0),
        v.stride(1),
        v.stride(2),
        gates.stride(0),
        gates.stride(1),
        gates.stride(2),
        tokens,
        blocks,
        sparse_block,
        local_block,
        selection.shape[3],
        head_dim,
        LOG2E * head_dim**-0.5,
        heads,
        kv_heads,
        rows,
        keys,
        dim,
        not (even and aligned),
        "ieee",
        flags,
        at_once,
        num_warps=choice.warps,
        num_stages=choice.stages or gpu.stages(2 * keys * wide, 2 * rows * wide),
    )
    return out
