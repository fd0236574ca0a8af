"""Which key blocks each query block attends: scores of block means, then the best n of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.launching import enqueue


@triton.jit
def _means(
    x,
    out,
    member_stride,
    token_stride,
    head_stride,
    blocks,
    block,
    head_dim,
    heads,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
):
    pid = tl.program_id(0)
    head = pid % heads
    place = (pid // heads) % blocks
    member = (pid // (heads * blocks)).to(tl.int64)
    lines = tl.arange(0, BLOCK)
    elements = tl.arange(0, DIM)
    tokens = (place * block + lines).to(tl.int64)
    at = x + member * member_stride + head * head_stride.to(tl.int64)
    at += tokens[:, None] * token_stride + elements[None, :]
    inside = (lines < block)[:, None] & (elements < head_dim)[None, :]
    mean = tl.sum(tl.load(at, mask=inside, other=0.0).to(tl.float32), axis=0) / block
    to = out + ((member * blocks + place) * heads + head) * head_dim + elements
    tl.store(to, mean, mask=elements < head_dim)


def block_means(x: Tensor, block: int) -> Tensor:
    """Means over each run of `block` tokens: (member, token, head, head_dim), any strides but the
    last, -> (member, block, head, head_dim) float32."""
    members, tokens, heads, head_dim = x.shape
    blocks = tokens // block
    out = torch.empty(members, blocks, heads, head_dim, dtype=torch.float32, device=x.device)
    enqueue(_means, (members * blocks * heads,))(
        x,
        out,
        x.stride(0),
        x.stride(1),
        x.stride(2),
        blocks,
        block,
        head_dim,
        heads,
        triton.next_power_of_2(block),
        triton.next_power_of_2(head_dim),
    )
    return out


@triton.jit
def _scores(
    q,
    k,
    scores,
    blocks,
    q_member,
    q_block,
    k_member,
    k_block,
    head_dim,
    kv_heads,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    key_tile, query_tile = tl.program_id(0), tl.program_id(1)
    kv_head = tl.program_id(2) % kv_heads
    member = (tl.program_id(2) // kv_heads).to(tl.int64)
    queries = query_tile * TILE + tl.arange(0, TILE)
    keys = key_tile * TILE + tl.arange(0, TILE)
    elements = tl.arange(0, DIM)
    total = tl.zeros([TILE, TILE], tl.float32)
    for turn in tl.static_range(GROUP):
        head = kv_head + turn * kv_heads  # as published: every kv_heads-th query head
        own = head // GROUP  # scored against its own key head
        q_at = q + member * q_member + queries[:, None].to(tl.int64) * q_block
        k_at = k + member * k_member + keys[None, :].to(tl.int64) * k_block
        q_in = (queries < blocks)[:, None] & (elements < head_dim)[None, :]
        k_in = (keys < blocks)[None, :] & (elements < head_dim)[:, None]
        qs = tl.load(q_at + head * head_dim + elements[None, :], mask=q_in, other=0.0)
        ks = tl.load(k_at + own * head_dim + elements[:, None], mask=k_in, other=0.0)
        total += tl.dot(qs, ks, input_precision=PRECISION)
    at = scores + ((member * kv_heads + kv_head) * blocks + queries[:, None]) * blocks
    inside = (queries < blocks)[:, None] & (keys < blocks)[None, :]
    tl.store(at + keys[None, :], total / GROUP, mask=inside)


@triton.jit(do_not_specialize=["count"])
def _best(scores, selection, blocks, count, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    keys = tl.arange(0, BLOCKS)
    left = tl.load(scores + row * blocks + keys, mask=keys < blocks, other=float("-inf"))
    left = tl.where(left == left, left, float("-inf"))  # NaN would never be taken out
    chosen = tl.zeros([BLOCKS], tl.int32)
    for _ in range(count):
        open_to = (chosen == 0) & (keys < blocks)
        best = tl.max(tl.where(open_to, left, float("-inf")), axis=0)
        at = tl.min(tl.where(open_to & (left == best), keys, BLOCKS), axis=0)
        chosen = tl.where(keys == at, 1, chosen)
    rank = tl.cumsum(chosen, axis=0) - 1
    tl.store(selection + row * count + rank, keys, mask=chosen == 1)


def select_blocks(
    query_means: Tensor, key_means: Tensor, count: int, *, scores: Tensor, out: Tensor
) -> Tensor:
    """The `count` best key blocks of each query block, ascending, into `out` (int32).

    `query_means` (member, block, head, head_dim) and `key_means` (member, block, kv_head,
    head_dim) are float32, contiguous in their last two axes; `scores` (member, kv_head, block,
    block) float32 is scratch; `out` is (member, kv_head, block, count). List h averages the
    scores of query heads h, h + K, h + 2K, ..., each against its own key head. Of equal scores
    the lower block wins.
    """
    members, blocks, heads, head_dim = query_means.shape
    kv_heads = key_means.shape[2]
    tile = 64 if blocks > 32 else 16
    tiles = triton.cdiv(blocks, tile)
    enqueue(_scores, (tiles, tiles, members * kv_heads))(
        query_means,
        key_means,
        scores,
        blocks,
        query_means.stride(0),
        query_means.stride(1),
        key_means.stride(0),
        key_means.stride(1),
        head_dim,
        kv_heads,
        heads // kv_heads,
        tile,
        max(16, triton.next_power_of_2(head_dim)),
        "tf32x3",
    )
    padded = triton.next_power_of_2(blocks)
    enqueue(_best, (members * kv_heads * blocks,))(
        scores, out, blocks, count, padded, num_warps=1 if padded <= 512 else 4
    )
    return out
