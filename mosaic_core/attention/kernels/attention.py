"""The fused attention kernel that suits a device and a shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mosaic_core.attention.kernels import portable_attention
from mosaic_core.attention.kernels.compressed import compressed_attention
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.selection import select_blocks


@dataclass(frozen=True)
class Sizes:
    """Blocks of one attention layer."""

    local_block: int
    sparse_block: int
    selected_blocks: int


@dataclass(frozen=True)
class Scratch:
    """Room that one layer needs beside its inputs: `scores` (member, kv_head, block, block)
    float32, `selection` (member, kv_head, block, listed) int32, `block_out` (member, block,
    head, head_dim)."""

    scores: Tensor
    selection: Tensor
    block_out: Tensor

    @classmethod
    def empty(
        cls, members: int, blocks: int, heads: tuple[int, int, int], listed: int, like: Tensor
    ) -> Scratch:
        """`heads` is (query heads, key heads, head size); `like` gives type and device."""
        query, key, size = heads
        return cls(
            like.new_empty(members, key, blocks, blocks, dtype=torch.float32),
            like.new_empty(members, key, blocks, listed, dtype=torch.int32),
            like.new_empty(members, blocks, query, size),
        )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    means: tuple[Tensor, Tensor, Tensor],
    sizes: Sizes,
    scratch: Scratch,
    *,
    out: Tensor,
    forced: bool = False,
) -> Tensor:
    """Gated sum of the branches into `out` (member, token, head, head_dim).

    Shapes as of `portable_attention.fused_attention`; `means` are the float32 block means of q,
    k and v. With `forced`, `scratch.selection` is taken as it stands.
    """
    query_means, key_means, value_means = means
    if not forced:
        select_blocks(
            query_means,
            key_means,
            sizes.selected_blocks,
            scores=scratch.scores,
            out=scratch.selection,
        )
    compressed_attention(query_means, key_means, value_means, out=scratch.block_out)
    fused_attention(q, k, v, gates, scratch, sizes, out=out)
    return out


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, scratch: Scratch, sizes: Sizes, *, out: Tensor
) -> None:
    """The pass over the queries: the Hopper kernel where it fits, else the portable one.

    v may be bfloat16 beside float16 q and k; the Hopper kernel takes it so only.
    """
    device = describe(q.device)
    suspects = None
    if device.hopper:
        from mosaic_core.attention.kernels import hopper_attention

        if hopper_attention.fits(q, k, v, gates, sizes.local_block, sizes.sparse_block):
            suspects = hopper_attention.launch(
                q,
                k,
                v,
                gates,
                scratch.block_out,
                scratch.selection,
                local_block=sizes.local_block,
                out=out,
                processors=device.processors,
            )
    portable_attention.fused_attention(
        q,
        k,
        v,
        gates,
        scratch.block_out,
        scratch.selection,
        local_block=sizes.local_block,
        sparse_block=sizes.sparse_block,
        out=out,
        suspects=suspects,
    )


def value_type(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type in which values are wanted beside queries and keys of `dtype`.

    On Hopper bfloat16 for 16-bit types: its range is what spares the running maximum.
    """
    narrow = dtype in (torch.float16, torch.bfloat16)
    return torch.bfloat16 if narrow and describe(device).hopper else dtype
