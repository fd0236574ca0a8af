"""Block-sparse attention in plain PyTorch: the specification the kernels are held to.

Three branches over the same tokens, mixed by a gate per head and token:
local (within a contiguous run of tokens), compressed (block means attend block means) and
selected (each query block attends all tokens of its best-scoring key blocks).

Letters in comments and shapes: B members, N tokens, H query heads, K key/value heads,
G = H // K query heads per key/value head, D head size, n sparse blocks, S selected blocks.
Query head i reads key/value head i // G. Maths run in float32, or float64 for float64 input.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

SCORES_AT_ONCE = 2**25  # scores (or gathered keys) alive at a time: 128 MiB of float32


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate_logits: Tensor,
    *,
    local_block: int,
    sparse_block: int,
    selected_blocks: int,
    selection: Tensor | None = None,
) -> Tensor:
    """Attention of q (B, N, H, D) on k, v (B, N, K, D), gates (B, N, H, 3) -> (B, N, H, D).

    q and k come after the rotary embedding; gate logits in the order local, compressed,
    selected. `selection` (B, K, n, S) forces the key blocks of every query block; a block
    listed twice counts twice. Without it the `select_blocks` choice is made. Inputs are taken
    as checked (see `mosaic_core.attention.api`).
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    queries, keys, values = q.to(dtype), k.to(dtype), v.to(dtype)
    query_means = block_means(queries, sparse_block)
    key_means = block_means(keys, sparse_block)
    if selection is None:
        selection = select_blocks(query_means, key_means, selected_blocks)
    gates = gate_logits.to(dtype).softmax(dim=-1)

    mixed = gates[..., 0:1] * local_attention(queries, keys, values, local_block)
    block_output = full_attention(query_means, key_means, block_means(values, sparse_block))
    mixed += gates[..., 1:2] * block_output.repeat_interleave(sparse_block, dim=1)
    mixed += gates[..., 2:3] * selected_attention(queries, keys, values, selection, sparse_block)
    return mixed.to(q.dtype)


def block_means(x: Tensor, block: int) -> Tensor:
    """Mean over each run of `block` tokens: (B, N, heads, D) -> (B, N / block, heads, D)."""
    return torch.unflatten(x, 1, (-1, block)).mean(dim=2)


def select_blocks(query_means: Tensor, key_means: Tensor, selected_blocks: int) -> Tensor:
    """Best key blocks of each query block: (B, n, H, D), (B, n, K, D) -> (B, K, n, S) ascending.

    As published, and as the weights were trained: list h averages the unscaled scores of query
    heads h, h + K, h + 2K, ... each against its own key head i // G. It serves query heads
    hG .. hG + G - 1 nonetheless.
    """
    group = query_means.shape[2] // key_means.shape[2]
    own_keys = key_means.repeat_interleave(group, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query_means, own_keys)
    listed = torch.unflatten(scores, 1, (group, -1)).mean(dim=1)
    return listed.topk(selected_blocks, dim=-1).indices.sort(dim=-1).values


def local_attention(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Full attention inside each run of `block` tokens: (B, N, H, D) -> (B, N, H, D)."""
    runs = [torch.unflatten(x, 1, (-1, block)).flatten(0, 1) for x in (q, k, v)]
    return torch.unflatten(full_attention(*runs), 0, (q.shape[0], -1)).flatten(1, 2)


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention within each row: (rows, Lq, H, D), (rows, Lk, K, D) -> (rows, Lq, H, D)."""
    per_row = q.shape[1] * q.shape[2] * k.shape[1]
    parts = [
        attend(group_heads(q[rows], k.shape[2]), k[rows].transpose(1, 2), v[rows].transpose(1, 2))
        for rows in slices(q.shape[0], per_row)
    ]
    return ungroup_heads(torch.cat(parts), q.shape[1])


def selected_attention(
    q: Tensor, k: Tensor, v: Tensor, selection: Tensor, sparse_block: int
) -> Tensor:
    """Each query block on the tokens of its `selection` (B, K, n, S): -> (B, N, H, D)."""
    members = [
        _selected_member(*tensors, sparse_block) for tensors in zip(q, k, v, selection, strict=True)
    ]
    return torch.stack(members)


def _selected_member(
    q: Tensor, k: Tensor, v: Tensor, selection: Tensor, sparse_block: int
) -> Tensor:
    kv_heads, _, listed = selection.shape
    query_blocks = torch.unflatten(q, 0, (-1, sparse_block))
    key_blocks, value_blocks = (
        torch.unflatten(x, 0, (-1, sparse_block)).permute(2, 0, 1, 3) for x in (k, v)
    )  # (K, n, sparse_block, D)
    heads = torch.arange(kv_heads, device=q.device)[:, None, None]
    per_row = listed * sparse_block * max(sparse_block * q.shape[1], 2 * kv_heads * q.shape[2])
    parts = []
    for rows in slices(len(query_blocks), per_row):
        keys, values = (
            x[heads, selection[:, rows]].flatten(2, 3).transpose(0, 1)
            for x in (key_blocks, value_blocks)
        )  # (rows, K, S * sparse_block, D)
        parts.append(attend(group_heads(query_blocks[rows], kv_heads), keys, values))
    return ungroup_heads(torch.cat(parts), sparse_block).flatten(0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over (rows, K, G * Lq, D) and (rows, K, Lk, D)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(dim=-1) @ v


def group_heads(x: Tensor, kv_heads: int) -> Tensor:
    """(rows, L, H, D) -> (rows, K, G * L, D): the query heads of a key head, one below another."""
    return torch.unflatten(x, 2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)


def ungroup_heads(x: Tensor, length: int) -> Tensor:
    """Inverse of `group_heads`: (rows, K, G * L, D) -> (rows, L, H, D)."""
    return torch.unflatten(x, 2, (-1, length)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def slices(count: int, cost: int) -> Iterator[slice]:
    """Consecutive slices of range(count) whose items, `cost` numbers each, fit the memory."""
    size = max(1, SCORES_AT_ONCE // cost)
    for start in range(0, count, size):
        yield slice(start, start + size)
