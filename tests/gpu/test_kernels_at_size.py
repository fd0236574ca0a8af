"""Kernels at the published head and block sizes, against float32 and float64 on the same GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mosaic_core.attention import api, reference
from mosaic_core.attention.kernels import attention, feedforward, projection
from mosaic_core.attention.kernels.attention import Scratch, Sizes
from mosaic_core.model.mesh import Rotation
from mosaic_core.model.transformer import rotate

GROUPS = [(12, 3), (16, 4), (20, 5)]  # query and key heads of the three levels
ROUNDING = {torch.float16: 4e-4, torch.bfloat16: 3e-3}  # of the operands and of the result


def relative(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def merged(
    members: int, tokens: int, heads: int, kv_heads: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """q, k, v and gates as columns of one matrix, as the engine has them."""
    parts = [heads * 64, kv_heads * 64, kv_heads * 64, 3 * heads]
    width = -(-sum(parts) // 64) * 64
    rows = torch.randn(members, tokens, width, device="cuda", dtype=dtype)
    q, k, v, gates = rows[..., : sum(parts)].split(parts, dim=-1)
    views = [x.unflatten(-1, (-1, 64)) for x in (q, k, v)]
    return (*views, gates.unflatten(-1, (heads, 3)))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_fused_attention(heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    torch.manual_seed(heads)
    members, tokens, blocks, listed = 2, 3072, 24, 5
    q, k, v, gates = merged(members, tokens, heads, kv_heads, dtype)
    selection = torch.randint(0, blocks, (members, kv_heads, blocks, listed), device="cuda")
    selection[..., 1] = selection[..., 0]  # a block listed twice counts twice
    scratch = Scratch.empty(members, blocks, (heads, kv_heads, 64), listed, q)
    scratch.selection.copy_(selection)
    scratch.block_out.normal_()
    out = torch.full((members, tokens, heads, 64), float("nan"), device="cuda", dtype=dtype)
    attention.fused_attention(q, k, v, gates, scratch, Sizes(1024, 128, listed), out=out)
    wide = [x.float() for x in (q, k, v)]
    weight = gates.float().softmax(dim=-1)
    expected = weight[..., 0:1] * reference.local_attention(*wide, 1024)
    block_out = scratch.block_out.float().repeat_interleave(128, dim=1)
    expected += weight[..., 1:2] * block_out
    expected += weight[..., 2:3] * reference.selected_attention(*wide, selection, 128)
    assert relative(out, expected) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_public_operation_with_a_forced_selection(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    q, k, v, gates = merged(1, 2048, 8, 2, dtype)
    selection = torch.rand(1, 2, 16, 16, device="cuda").topk(3).indices
    blocks = {"local_block": 1024, "sparse_block": 128, "selected_blocks": 3}
    fast = api.block_sparse_attention(q, k, v, gates, **blocks, selection=selection)
    exact = api.block_sparse_attention(
        *(x.double() for x in (q, k, v, gates)), **blocks, selection=selection, impl="reference"
    )
    assert relative(fast, exact) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize(("dim", "hidden"), [(768, 3072), (1024, 4096), (1280, 5120), (96, 160)])
def test_swiglu(dim: int, hidden: int) -> None:
    torch.manual_seed(dim)
    members, tokens = 3, 384
    x = torch.randn(members * tokens, dim, device="cuda", dtype=torch.float16)
    w13 = torch.randn(2 * hidden, dim, device="cuda", dtype=torch.float16) * dim**-0.5
    scale = torch.rand(len(x), device="cuda") + 0.5
    bias = torch.randn(members, hidden + 8, device="cuda")[:, :hidden]
    out = torch.full((len(x), hidden), float("nan"), device="cuda", dtype=torch.float16)
    feedforward.swiglu(x, feedforward.interleave(w13), scale, bias, tokens=tokens, out=out)
    gate, value = ((x.double() * scale[:, None]) @ w13.double().T).chunk(2, dim=-1)
    shifted = gate + bias.double().repeat_interleave(tokens, dim=0)
    assert relative(out, functional.silu(shifted) * value) < ROUNDING[torch.float16]


@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_projection(heads: int, kv_heads: int) -> None:
    torch.manual_seed(heads)
    members, tokens, block, dim, every = 2, 384, 128, heads * 64, heads + 2 * kv_heads
    x = torch.randn(members * tokens, dim, device="cuda", dtype=torch.float16)
    width = -(-(every * 64 + 3 * heads) // 64) * 64
    weight = torch.randn(width, dim, device="cuda", dtype=torch.float16) * dim**-0.5
    scale = torch.rand(len(x), device="cuda") + 0.5
    angles = torch.rand(tokens, 32, device="cuda") * 6
    found, means = projection.project(
        x,
        weight,
        scale,
        (angles.cos(), angles.sin()),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=64,
        tokens=tokens,
        block=block,
    )
    plain = ((x.double() * scale[:, None]) @ weight.double().T).unflatten(0, (members, tokens))
    parts = plain[..., : every * 64].unflatten(-1, (every, 64))
    turned = rotate(parts[:, :, : heads + kv_heads], Rotation(angles.cos(), angles.sin()))
    parts = torch.cat([turned, parts[:, :, heads + kv_heads :]], dim=2)
    expected = torch.cat([parts.flatten(2), plain[..., every * 64 :]], dim=-1)
    assert relative(found, expected.flatten(0, 1)) < ROUNDING[torch.float16]
    averages = parts.unflatten(1, (-1, block)).mean(dim=2).flatten(0, 1)
    assert relative(means, averages) < 1e-5
