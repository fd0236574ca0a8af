"""After the merged projection: norm scale, rotary embedding and block means in one pass.

One program owns one sparse block of tokens and finishes every head of it in place. It reads the
residual rows only for their norm, because the projection was made from rows not yet normed.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["query_heads", "kv_heads"])
def _finish(
    x, projected, cos, sin, means, tokens, dim, width, block, eps, query_heads, kv_heads,
    HEAD_DIM: tl.constexpr, ROTATE: tl.constexpr,
    BLOCK: tl.constexpr, HALF: tl.constexpr, STEP: tl.constexpr, GATES: tl.constexpr,
):
    block_id = tl.program_id(0).to(tl.int64)
    lines = tl.arange(0, BLOCK)
    present = lines < block
    rows = block_id * block + lines
    square = tl.zeros([BLOCK, STEP], tl.float32)
    for start in range(0, dim, STEP):
        columns = start + tl.arange(0, STEP)
        held = present[:, None] & (columns < dim)[None, :]
        residual = tl.load(x + rows[:, None] * dim + columns[None, :], mask=held, other=0.0)
        square += residual.to(tl.float32) * residual.to(tl.float32)
    scale = (1.0 / tl.sqrt(tl.sum(square, axis=1) / dim + eps))[:, None]

    pairs = tl.arange(0, HALF)
    elements = tl.arange(0, 2 * HALF)
    real = elements < HEAD_DIM
    token = (rows % tokens)[:, None]
    turning = present[:, None] & (pairs < HEAD_DIM // 2)[None, :]
    if ROTATE:
        angle = token * (HEAD_DIM // 2) + pairs[None, :]
        c = tl.load(cos + angle, mask=turning, other=0.0)
        s = tl.load(sin + angle, mask=turning, other=0.0)
    heads = query_heads + 2 * kv_heads
    for head in range(heads):
        at = projected + rows[:, None] * width + head * HEAD_DIM + elements[None, :]
        inside = present[:, None] & real[None, :]
        values = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale
        if ROTATE:
            if head < query_heads + kv_heads:
                even, odd = tl.split(tl.reshape(values, [BLOCK, HALF, 2]))
                turned = tl.join(even * c - odd * s, odd * c + even * s)
                values = tl.reshape(turned, [BLOCK, 2 * HALF])
        tl.store(at, values.to(projected.dtype.element_ty), mask=inside)
        mean = tl.sum(values, axis=0) / block
        to = means + (block_id * heads + head) * HEAD_DIM + elements
        tl.store(to, mean, mask=real)

    gates = tl.arange(0, GATES)
    gates_at = projected + rows[:, None] * width + heads * HEAD_DIM + gates[None, :]
    gated = present[:, None] & (gates < 3 * query_heads)[None, :]
    logits = tl.load(gates_at, mask=gated, other=0.0).to(tl.float32) * scale
    tl.store(gates_at, logits.to(projected.dtype.element_ty), mask=gated)


def finish_projection(
    x: Tensor,
    projected: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    means: Tensor,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    block: int,
    eps: float,
) -> None:
    """Scale, rotate and average `projected` (rows, width) in place.

    Its columns are query, key and value heads, then the 3 x heads gate logits, made from the
    residual rows x (rows, dim) without their norm. `rotation` is (cos, sin), each
    (tokens, head_dim / 2) float32, for queries and keys. `means` (blocks, heads + 2 kv_heads,
    head_dim) float32 takes the block means of the finished values before rounding.
    """
    rows, dim = x.shape
    cos, sin = rotation if rotation is not None else (x, x)
    step = min(64, triton.next_power_of_2(dim))
    _finish[(rows // block,)](
        x, projected, cos, sin, means, tokens, dim, projected.stride(0), block, eps,
        heads, kv_heads, head_dim, rotation is not None,
        triton.next_power_of_2(block), triton.next_power_of_2(head_dim) // 2, step,
        triton.next_power_of_2(3 * heads), num_warps=8, num_stages=1,
    )
