"""The one public attention operation: checks its arguments and picks an implementation.

The reference defines the result; `mosaic_core.attention.kernels` computes the same on a GPU.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from mosaic_core.attention import library, reference
from mosaic_core.contract.errors import ModelError

logger = logging.getLogger(__name__)

Implementation = Literal["auto", "reference", "triton", "sdpa", "flash"]
KERNELS = "mosaic_core.attention.kernels.entry"  # has block_sparse_attention as in `reference`


def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate_logits: Tensor,
    *,
    local_block: int,
    sparse_block: int,
    selected_blocks: int,
    impl: Implementation = "auto",
    selection: Tensor | None = None,
) -> Tensor:
    """Gated sum of local, compressed and selected attention -> (member, token, head, head_dim).

    q is (member, token, head, head_dim) after the rotary embedding, k and v are
    (member, token, kv_head, head_dim); gate_logits (member, token, head, 3) in the order local,
    compressed, selected. `local_block` and `sparse_block` divide the tokens.
    `selection` (member, kv_head, query block, any count) forces the key blocks instead of the
    `selected_blocks` best ones. `impl` "auto" takes the kernels for CUDA tensors where they are
    installed, else the reference; float64 always takes the reference. ModelError names a wrong
    shape, dtype, device, block or index.
    """
    _check_tensors(q, k, v, gate_logits)
    _check_blocks(q.shape[1], local_block, sparse_block, selected_blocks)
    if selection is not None:
        _check_selection(selection, q.shape[0], k.shape[2], q.shape[1] // sparse_block)
    compute = _implementation(impl, q)
    return compute(
        q,
        k,
        v,
        gate_logits,
        local_block=local_block,
        sparse_block=sparse_block,
        selected_blocks=selected_blocks,
        selection=selection,
    )


def _implementation(impl: str, q: Tensor) -> Callable[..., Tensor]:
    if impl not in get_args(Implementation):
        raise ModelError(
            f"unknown implementation {impl!r}",
            remedy=f"one of {', '.join(get_args(Implementation))}",
        )
    if impl in ("sdpa", "flash"):
        _announce(impl, "as asked for")
        return partial(library.block_sparse_attention, backend=impl)
    suits = q.is_cuda and q.dtype != torch.float64 and kernels_available()
    if impl == "reference" or (impl == "auto" and not suits):
        kind = str(q.dtype).removeprefix("torch.")
        reason = "as asked for" if impl == "reference" else f"no kernels for {kind} on {q.device}"
        _announce("reference", reason)
        return reference.block_sparse_attention
    if not kernels_available():
        raise ModelError("the Triton kernels are not installed", remedy="pip install triton")
    _announce("triton", "as asked for" if impl == "triton" else "there is a GPU")
    return cast("Callable[..., Tensor]", importlib.import_module(KERNELS).block_sparse_attention)


@cache
def _announce(implementation: str, reason: str) -> None:
    """Say once which implementation runs and why."""
    logger.info("attention: %s (%s)", implementation, reason)


def kernels_available() -> bool:
    """Whether the Triton kernels can be imported."""
    return find_spec("triton") is not None and find_spec(KERNELS) is not None


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, gate_logits: Tensor) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ModelError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must be (member, token, head, head_dim), "
            "the query heads a multiple of the key heads"
        )
    members, tokens, _, head_dim = q.shape
    keys = (members, tokens, k.shape[2], head_dim)
    expected = {"k": (k, keys), "v": (v, keys), "gate_logits": (gate_logits, (*q.shape[:3], 3))}
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ModelError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
        if tensor.dtype != q.dtype or tensor.device != q.device:
            raise ModelError(
                f"{name} is {tensor.dtype} on {tensor.device}, q is {q.dtype} on {q.device}"
            )
    if not q.is_floating_point():
        raise ModelError(f"q is {q.dtype}, expected a floating point type")


def _check_blocks(tokens: int, local_block: int, sparse_block: int, selected_blocks: int) -> None:
    for name, block in (("local_block", local_block), ("sparse_block", sparse_block)):
        if block < 1 or tokens % block:
            raise ModelError(f"{name} {block} does not divide the {tokens} tokens")
    if not 1 <= selected_blocks <= tokens // sparse_block:
        raise ModelError(
            f"selected_blocks is {selected_blocks}, expected 1 to {tokens // sparse_block}"
        )


def _check_selection(selection: Tensor, members: int, kv_heads: int, blocks: int) -> None:
    if selection.shape[:-1] != (members, kv_heads, blocks) or selection.shape[-1] < 1:
        raise ModelError(
            f"selection has shape {tuple(selection.shape)}, "
            f"expected ({members}, {kv_heads}, {blocks}, count)"
        )
    if selection.dtype not in (torch.int64, torch.int32):
        raise ModelError(f"selection is {selection.dtype}, expected int64 or int32")
    if selection.is_cuda:
        return  # reading the range would stop the host at every call; the kernels mask
    if int(selection.min()) < 0 or int(selection.max()) >= blocks:
        raise ModelError(
            f"selection has indices {int(selection.min())} to {int(selection.max())}, "
            f"expected 0 to {blocks - 1}"
        )
