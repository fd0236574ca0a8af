"""The local and compressed branches by somebody else's attention, to compare with and fall back on.

`sdpa` is PyTorch's own (cuDNN first on a GPU), `flash` whichever flash-attn is installed. The
selected branch is the project's either way: no library takes lists of blocks and shared keys.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mosaic_core.attention import reference
from mosaic_core.contract.errors import ModelError

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # (rows, L, heads, D) each, keys grouped

# Package, module and function of the versions of flash-attn, newest first: 4, 3, 2.
FLASH = (
    ("flash_attn.cute", "flash_attn.cute.interface"),
    ("flash_attn_interface", "flash_attn_interface"),
    ("flash_attn", "flash_attn"),
)
PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate_logits: Tensor,
    *,
    backend: str,
    local_block: int,
    sparse_block: int,
    selected_blocks: int,
    selection: Tensor | None = None,
) -> Tensor:
    """As `reference.block_sparse_attention`; `backend` is "sdpa" or "flash".

    ModelError where flash-attn is not installed.
    """
    attend = sdpa if backend == "sdpa" else flash()
    means = [reference.block_means(x.float(), sparse_block) for x in (q, k, v)]
    if selection is None:
        selection = reference.select_blocks(means[0], means[1], selected_blocks)
    gates = gate_logits.float().softmax(dim=-1)
    runs = [x.unflatten(1, (-1, local_block)).flatten(0, 1) for x in (q, k, v)]
    local = attend(*runs).unflatten(0, (q.shape[0], -1)).flatten(1, 2)
    compressed = attend(*(x.to(q.dtype) for x in means)).repeat_interleave(sparse_block, dim=1)
    selected = selected_attention(q, k, v, selection, local_block, sparse_block)
    mixed = gates[..., 0:1] * local + gates[..., 1:2] * compressed + gates[..., 2:3] * selected
    return mixed.to(q.dtype)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's attention over (rows, L, heads, D), query head i on key head i // group."""
    heads_first = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    with sdpa_kernel(PREFERRED, set_priority=True):
        out = scaled_dot_product_attention(*heads_first, enable_gqa=q.shape[2] != k.shape[2])
    return out.transpose(1, 2)


def flash() -> Attention:
    """The newest flash-attn there is; ModelError if there is none."""
    for package, module in FLASH:
        if _installed(package):
            function = importlib.import_module(module).flash_attn_func
            return lambda q, k, v: _first(function(q, k, v))
    raise ModelError("flash-attn is not installed", remedy="pip install flash-attn, or impl='sdpa'")


def _installed(package: str) -> bool:
    parent = package.partition(".")[0]
    return find_spec(parent) is not None and find_spec(package) is not None


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def selected_attention(
    q: Tensor, k: Tensor, v: Tensor, selection: Tensor, local_block: int, sparse_block: int
) -> Tensor:
    """The selected branch alone: the fused kernel with the other gates shut, on a CPU the
    reference."""
    if not q.is_cuda:
        return reference.selected_attention(
            q.float(), k.float(), v.float(), selection, sparse_block
        ).to(q.dtype)
    from mosaic_core.attention.kernels.attention import Scratch, Sizes, fused_attention, value_type

    members, tokens, heads, size = q.shape
    listed = selection.shape[-1]
    counts = (heads, k.shape[2], size)
    scratch = Scratch.empty(members, tokens // sparse_block, counts, listed, q)
    scratch.selection.copy_(selection)
    scratch.block_out.zero_()
    shut = torch.full((*q.shape[:3], 3), float("-inf"), dtype=q.dtype, device=q.device)
    shut[..., 2] = 0
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    v = v.to(value_type(v.device, v.dtype))
    fused_attention(q, k, v, shut, scratch, Sizes(local_block, sparse_block, listed), out=out)
    return out
