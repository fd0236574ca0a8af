"""The compressed branch: block means of the queries attend block means of keys and values."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.launching import enqueue

LOG2E = 1.4426950408889634
TRITON_TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}


@triton.jit
def _compressed(
    q,
    k,
    v,
    out,
    blocks,
    q_member,
    q_block,
    k_member,
    k_block,
    v_member,
    v_block,
    head_dim,
    scale,
    heads,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
    DIM: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = tl.program_id(1) % heads
    member = (tl.program_id(1) // heads).to(tl.int64)
    kv_head = head // GROUP
    lines = tl.program_id(0) * TILE + tl.arange(0, TILE)
    elements = tl.arange(0, DIM)
    real = elements < head_dim
    q_in = (lines < blocks)[:, None] & real[None, :]
    q_at = q + member * q_member + lines[:, None].to(tl.int64) * q_block + head * head_dim
    queries = tl.load(q_at + elements[None, :], mask=q_in, other=0.0).to(DTYPE)
    row_max = tl.full([TILE], float("-inf"), tl.float32)
    row_sum = tl.zeros([TILE], tl.float32)
    total = tl.zeros([TILE, DIM], tl.float32)
    for start in range(0, blocks, TILE):
        keys = start + tl.arange(0, TILE)
        k_in = (keys < blocks)[:, None] & real[None, :]
        k_at = k + member * k_member + keys[:, None].to(tl.int64) * k_block + kv_head * head_dim
        v_at = v + member * v_member + keys[:, None].to(tl.int64) * v_block + kv_head * head_dim
        ks = tl.load(k_at + elements[None, :], mask=k_in, other=0.0).to(DTYPE)
        vs = tl.load(v_at + elements[None, :], mask=k_in, other=0.0).to(DTYPE)
        scores = tl.dot(queries, tl.trans(ks), input_precision=PRECISION) * scale
        scores = tl.where((keys < blocks)[None, :], scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        factor = tl.exp2(row_max - new_max)
        p = tl.exp2(scores - new_max[:, None])
        row_sum = row_sum * factor + tl.sum(p, axis=1)
        total = total * factor[:, None] + tl.dot(p.to(DTYPE), vs, input_precision=PRECISION)
        row_max = new_max
    to = out + ((member * blocks + lines[:, None]) * heads + head) * head_dim + elements[None, :]
    tl.store(to, (total / row_sum[:, None]).to(out.dtype.element_ty), mask=q_in)


def compressed_attention(
    query_means: Tensor, key_means: Tensor, value_means: Tensor, *, out: Tensor
) -> Tensor:
    """Attention among block means into `out` (member, block, head, head_dim).

    The means are (member, block, heads or kv_heads, head_dim) float32, contiguous in their last
    two axes; the products run in the type of `out`.
    """
    members, blocks, heads, head_dim = query_means.shape
    tile = 64 if blocks > 32 else 16
    dim = max(16, triton.next_power_of_2(head_dim))
    step_bytes = 2 * tile * dim * query_means.element_size()
    enqueue(_compressed, (triton.cdiv(blocks, tile), members * heads))(
        query_means,
        key_means,
        value_means,
        out,
        blocks,
        query_means.stride(0),
        query_means.stride(1),
        key_means.stride(0),
        key_means.stride(1),
        value_means.stride(0),
        value_means.stride(1),
        head_dim,
        LOG2E * head_dim**-0.5,
        heads,
        heads // key_means.shape[2],
        tile,
        dim,
        TRITON_TYPES[out.dtype],
        "ieee",
        num_stages=describe(out.device).stages(step_bytes, step_bytes),
    )
    return out
