"""Attention of every target place on its nearest source places, with the keys folded away.

A query is a linear map of a direction in space, q = W_q r, so that q . k = r . (W_q^T k): three
numbers per head and source, made by one small projection, replace the whole key.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.attention.kernels.compressed import LOG2E
from mosaic_core.attention.kernels.launching import enqueue


@triton.jit
def _gather(
    projected,
    scale,
    indices,
    directions,
    out,
    sources,
    targets,
    neighbors,
    width,
    heads,
    head_dim,
    HEAD_DIM: tl.constexpr,
    NEIGHBORS: tl.constexpr,
    HEADS: tl.constexpr,
):
    target = tl.program_id(0)
    member = tl.program_id(2).to(tl.int64)
    near = tl.arange(0, NEIGHBORS)
    known = near < neighbors
    source = tl.load(indices + target.to(tl.int64) * neighbors + near, mask=known, other=0)
    row = member * sources + source
    factor = tl.load(scale + row, mask=known, other=0.0)
    at = directions + (target.to(tl.int64) * neighbors + near) * 3
    x = tl.load(at, mask=known, other=0.0) * factor
    y = tl.load(at + 1, mask=known, other=0.0) * factor
    z = tl.load(at + 2, mask=known, other=0.0) * factor
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    elements = tl.arange(0, HEAD_DIM)
    columns = head[:, None] * head_dim + elements[None, :]
    real = (head < heads)[:, None] & (elements < head_dim)[None, :]
    values_at = projected + row[:, None, None] * width + columns[None, :, :]
    values = tl.load(values_at, mask=known[:, None, None] & real[None, :, :], other=0.0)

    inside = known[:, None] & (head < heads)[None, :]
    folded = projected + row[:, None] * width + heads * head_dim + head[None, :] * 3
    logits = tl.load(folded, mask=inside, other=0.0).to(tl.float32) * x[:, None]
    logits += tl.load(folded + 1, mask=inside, other=0.0).to(tl.float32) * y[:, None]
    logits += tl.load(folded + 2, mask=inside, other=0.0).to(tl.float32) * z[:, None]
    logits = tl.where(known[:, None], logits, float("-inf"))
    p = tl.exp2(logits - tl.max(logits, axis=0)[None, :])
    weights = p / tl.sum(p, axis=0)[None, :] * factor[:, None]
    total = tl.sum(values.to(tl.float32) * weights[:, :, None], axis=0)
    to = out + (member * targets + target) * (heads * head_dim) + columns
    tl.store(to, total.to(out.dtype.element_ty), mask=real)


def interpolate(
    projected: Tensor,
    scale: Tensor,
    indices: Tensor,
    directions: Tensor,
    *,
    heads: int,
    out: Tensor,
) -> Tensor:
    """Weighted sums of neighbours' values into `out` (member, target, heads * head_dim).

    `projected` (member, source, width) holds the values, then heads x 3 folded keys (softmax
    scale and log2(e) included), made from rows without their norm; `scale` (member, source)
    float32 is that norm. `indices` (target, k) int32, `directions` (target, k,
    3) float32.
    """
    members, sources, width = projected.shape
    targets, neighbors = indices.shape
    head_dim = out.shape[2] // heads
    at_once = min(4, triton.next_power_of_2(heads))
    enqueue(_gather, (targets, triton.cdiv(heads, at_once), members))(
        projected,
        scale,
        indices,
        directions,
        out,
        sources,
        targets,
        neighbors,
        width,
        heads,
        head_dim,
        triton.next_power_of_2(head_dim),
        triton.next_power_of_2(neighbors),
        at_once,
        num_warps=1,
    )
    return out


def fold_keys(to_q: Tensor, to_k: Tensor, heads: int) -> Tensor:
    """W_q^T W_k of every head with the softmax scale and log2(e): (heads * 3, dim).

    `to_q` (dim, 3) and `to_k` (dim, dim) are weights of the interpolation, (head, head_dim) by
    rows.
    """
    dim = to_k.shape[1]
    queries = to_q.double().reshape(heads, -1, 3)
    keys = to_k.double().reshape(heads, -1, dim)
    folded = queries.transpose(1, 2) @ keys * (queries.shape[1] ** -0.5 * LOG2E)
    return folded.reshape(heads * 3, dim).to(to_k.dtype)
