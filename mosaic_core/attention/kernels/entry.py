"""Block-sparse attention on a GPU: the same result as `reference.block_sparse_attention`."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.attention.kernels.attention import Scratch, Sizes, attend, value_type
from mosaic_core.attention.kernels.selection import block_means
from mosaic_core.contract.errors import ModelError

SUPPORTED = (torch.float16, torch.bfloat16, torch.float32)


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

    Shapes and blocks are taken as checked (see `mosaic_core.attention.api`). Products run in the
    type of q with float32 sums. ModelError for a type the kernels do not have, a last axis that
    is not contiguous, or an index of `selection` out of range.
    """
    _check(q, k, v, gate_logits)
    members, tokens, heads, head_dim = q.shape
    blocks = tokens // sparse_block
    listed = selected_blocks if selection is None else selection.shape[-1]
    sizes = Sizes(local_block, sparse_block, listed)
    scratch = Scratch.empty(members, blocks, (heads, k.shape[2], head_dim), listed, q)
    if selection is not None:
        _check_range(selection, blocks)
        scratch.selection.copy_(selection)
    means = (
        block_means(q, sparse_block),
        block_means(k, sparse_block),
        block_means(v, sparse_block),
    )
    return attend(
        q,
        k,
        v.to(value_type(v.device, v.dtype)),
        gate_logits,
        means,
        sizes,
        scratch,
        out=torch.empty(q.shape, dtype=q.dtype, device=q.device),
        forced=selection is not None,
    )


def _check(*tensors: Tensor) -> None:
    for name, tensor in zip(("q", "k", "v", "gate_logits"), tensors, strict=True):
        if tensor.dtype not in SUPPORTED:
            raise ModelError(
                f"{name} is {tensor.dtype}; the kernels compute in float16, bfloat16 or float32",
                remedy="convert it, or use impl='reference'",
            )
        if tensor.stride(-1) != 1:
            raise ModelError(
                f"the last axis of {name} is not contiguous, its strides are {tensor.stride()}",
                remedy=f"pass {name}.contiguous()",
            )


def _check_range(selection: Tensor, blocks: int) -> None:
    low, high = (int(bound) for bound in torch.aminmax(selection))
    if low < 0 or high >= blocks:
        raise ModelError(
            f"selection has indices {low} to {high}, expected 0 to {blocks - 1}",
            remedy="list existing key blocks only",
        )
