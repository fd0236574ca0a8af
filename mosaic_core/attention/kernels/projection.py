"""The merged projection with norm scale, rotary embedding and block means.

On Hopper GPUs one kernel does it all. Elsewhere a library product is finished in place: one
program owns one sparse block of tokens and some of its heads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.compressed import TRITON_TYPES
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.launching import enqueue
from mosaic_core.attention.kernels.products import product

HEADS_AT_ONCE = 6  # of one program: the angles are read once for them


@triton.jit(do_not_specialize=["query_heads", "kv_heads"])
def _finish(
    projected,
    scale,
    cos,
    sin,
    means,
    tokens,
    width,
    block,
    query_heads,
    kv_heads,
    HEAD_DIM: tl.constexpr,
    VALUE_TYPE: tl.constexpr,
    ROTATE: tl.constexpr,
    BLOCK: tl.constexpr,
    HALF: tl.constexpr,
    PART: tl.constexpr,
    GATES: tl.constexpr,
):
    block_id = tl.program_id(0).to(tl.int64)
    lines = tl.arange(0, BLOCK)
    present = lines < block
    rows = block_id * block + lines
    factor = tl.load(scale + rows, mask=present, other=0.0)[:, None]
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
    first = tl.program_id(1) * PART
    for head in range(first, tl.minimum(first + PART, heads)):
        at = projected + rows[:, None] * width + head * HEAD_DIM + elements[None, :]
        inside = present[:, None] & real[None, :]
        values = tl.load(at, mask=inside, other=0.0).to(tl.float32) * factor
        if ROTATE:  # noqa: SIM102 -- the outer one is decided when the kernel is compiled
            if head < query_heads + kv_heads:
                even, odd = tl.split(tl.reshape(values, [BLOCK, HALF, 2]))
                turned = tl.join(even * c - odd * s, odd * c + even * s)
                values = tl.reshape(turned, [BLOCK, 2 * HALF])
        narrow = values.to(projected.dtype.element_ty)
        if projected.dtype.element_ty != VALUE_TYPE:
            bits = values.to(VALUE_TYPE).to(projected.dtype.element_ty, bitcast=True)
            narrow = tl.where(head < query_heads + kv_heads, narrow, bits)
        tl.store(at, narrow, mask=inside)
        mean = tl.sum(values, axis=0) / block
        to = means + (block_id * heads + head) * HEAD_DIM + elements
        tl.store(to, mean, mask=real)
    if first == 0:
        gates = tl.arange(0, GATES)
        gates_at = projected + rows[:, None] * width + heads * HEAD_DIM + gates[None, :]
        gated = present[:, None] & (gates < 3 * query_heads)[None, :]
        logits = tl.load(gates_at, mask=gated, other=0.0).to(tl.float32) * factor
        tl.store(gates_at, logits.to(projected.dtype.element_ty), mask=gated)


def project(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    block: int,
    value_type: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Rows x (rows, dim) without norm -> (projected (rows, width), block means).

    `weight` (width, dim) makes query, key and value heads, then gate logits; `scale` (rows,)
    float32 is the norm; `rotation` (cos, sin), each (tokens, head_dim / 2) float32, turns
    queries and keys. The result has the type of x, but value heads hold the bits of `value_type`.
    The means (blocks, heads + 2 kv_heads, head_dim) are float32 and of values not yet rounded.
    """
    every = heads + 2 * kv_heads
    device = describe(x.device)
    if device.hopper and rotation is not None and value_type == torch.bfloat16:
        from mosaic_core.attention.kernels import hopper_projection

        if hopper_projection.fits(x, weight, head_dim, block):
            projected = x.new_empty(len(x), len(weight))
            means = hopper_projection.launch(
                x,
                weight,
                scale,
                rotation,
                heads=every,
                turned=heads + kv_heads,
                tokens=tokens,
                out=projected,
                processors=device.processors,
            )
            return projected, means
    projected = product(x, weight, len(x) // tokens)
    means = x.new_empty(len(x) // block, every, head_dim, dtype=torch.float32)
    finish_projection(
        projected,
        scale,
        rotation,
        means,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        tokens=tokens,
        block=block,
        value_type=value_type,
    )
    return projected, means


def finish_projection(
    projected: Tensor,
    scale: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    means: Tensor,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    tokens: int,
    block: int,
    value_type: torch.dtype,
) -> None:
    """Scale, rotate and average `projected` (rows, width) in place.

    Its columns are query, key and value heads, then the 3 x heads gate logits, made from rows
    without their norm; `scale` (rows,) float32 is that norm. `rotation` is (cos, sin), each
    (tokens, head_dim / 2) float32, for queries and keys. `means` (blocks, heads + 2 kv_heads,
    head_dim) float32 takes the block means of the finished values before rounding. Value heads
    are written as the bits of `value_type`.
    """
    cos, sin = rotation if rotation is not None else (scale, scale)
    parts = triton.cdiv(heads + 2 * kv_heads, HEADS_AT_ONCE)
    enqueue(_finish, (len(projected) // block, parts))(
        projected,
        scale,
        cos,
        sin,
        means,
        tokens,
        projected.stride(0),
        block,
        heads,
        kv_heads,
        head_dim,
        TRITON_TYPES[value_type],
        rotation is not None,
        triton.next_power_of_2(block),
        triton.next_power_of_2(head_dim) // 2,
        HEADS_AT_ONCE,
        triton.next_power_of_2(3 * heads),
        num_warps=4,
        num_stages=1,
    )
