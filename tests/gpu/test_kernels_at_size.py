"""Kernels at the published head and block sizes, against float32 and float64 on the same GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mosaic_core.attention import api, reference
from mosaic_core.attention.kernels import attention, feedforward, hopper_attention, projection
from mosaic_core.attention.kernels.attention import Scratch, Sizes
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.eight_bit import (
    hidden_groups,
    quantize_hidden,
    quantized,
    quantized_weight,
    widened_hidden,
)
from mosaic_core.attention.kernels.norms import row_scale
from mosaic_core.attention.kernels.residual import add_product
from mosaic_core.model.mesh import Rotation
from mosaic_core.model.transformer import rotate

GROUPS = [(12, 3), (16, 4), (20, 5)]  # query and key heads of the three levels
ROUNDING = {torch.float16: 4e-4, torch.bfloat16: 3e-3}  # of the operands and of the result
VALUE_ROUNDING = 3e-3  # values and softmax weights are bfloat16 on Hopper


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


def expected_attention(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, scratch: Scratch, sizes: Sizes
) -> Tensor:
    """The three branches in float32, the compressed one as it stands in `scratch`."""
    wide = [x.float() for x in (q, k, v)]
    weight = gates.float().softmax(dim=-1)
    block_out = scratch.block_out.float().repeat_interleave(sizes.sparse_block, dim=1)
    local = reference.local_attention(*wide, sizes.local_block)
    selected = reference.selected_attention(*wide, scratch.selection.long(), sizes.sparse_block)
    return weight[..., 0:1] * local + weight[..., 1:2] * block_out + weight[..., 2:3] * selected


def drawn_case(
    heads: int, kv_heads: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], Scratch, Sizes]:
    """Operands with the values in the type the device wants, random lists, a block listed twice."""
    torch.manual_seed(heads)
    members, tokens, blocks, listed = 2, 3072, 24, 5
    q, k, v, gates = merged(members, tokens, heads, kv_heads, dtype)
    selection = torch.randint(0, blocks, (members, kv_heads, blocks, listed), device="cuda")
    selection[..., 1] = selection[..., 0]  # a block listed twice counts twice
    scratch = Scratch.empty(members, blocks, (heads, kv_heads, 64), listed, q)
    scratch.selection.copy_(selection)
    scratch.block_out.normal_()
    v = v.to(attention.value_type(v.device, dtype))
    return (q, k, v, gates), scratch, Sizes(1024, 128, listed)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("heads", "kv_heads"), [*GROUPS, (6, 2)])
def test_fused_attention(heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    operands, scratch, sizes = drawn_case(heads, kv_heads, dtype)
    out = torch.full(operands[0].shape, float("nan"), device="cuda", dtype=dtype)
    attention.fused_attention(*operands, scratch, sizes, out=out)
    expected = expected_attention(*operands, scratch, sizes)
    assert relative(out, expected) < VALUE_ROUNDING


def test_rows_beyond_the_range_of_a_fixed_shift_are_done_again(cuda: torch.device) -> None:
    if not describe(cuda).hopper:
        pytest.skip("elsewhere the maximum is a running one")
    (q, k, v, gates), scratch, sizes = drawn_case(12, 3, torch.float16)
    q = q.clone()
    q[:, 128:256] *= 200  # scores of hundreds: the first tile's maximum is far from the row's
    out = torch.full(q.shape, float("nan"), device="cuda", dtype=torch.float16)
    suspects = hopper_attention.launch(
        q,
        k,
        v,
        gates,
        scratch.block_out,
        scratch.selection,
        local_block=sizes.local_block,
        out=torch.empty_like(out),
        processors=describe(cuda).processors,
    )
    marked = suspects.any(dim=1).unflatten(0, (2, 3, 24, 4))
    assert marked[:, :, 1].any()
    assert not marked[:, :, 2:].any()
    attention.fused_attention(q, k, v, gates, scratch, sizes, out=out)
    expected = expected_attention(q, k, v, gates, scratch, sizes)
    assert relative(out, expected) < VALUE_ROUNDING
    assert relative(out[:, 128:256], expected[:, 128:256]) < VALUE_ROUNDING


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
    assert relative(fast, exact) < VALUE_ROUNDING + ROUNDING[dtype]


EIGHT_BITS = 2e-2  # of rows and weights drawn from a normal distribution


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize(("dim", "hidden"), [(768, 3072), (1024, 4096), (1280, 5120), (96, 160)])
def test_swiglu(dim: int, hidden: int, eight_bit: bool) -> None:
    torch.manual_seed(dim)
    members, tokens = 3, 384
    x = torch.randn(members * tokens, dim, device="cuda", dtype=torch.float16)
    w13 = torch.randn(2 * hidden, dim, device="cuda", dtype=torch.float16) * dim**-0.5
    scale, bias = row_scale(x, 0.1), torch.randn(members, hidden + 8, device="cuda")[:, :hidden]
    gate, value = ((x.double() * scale[:, None]) @ w13.double().T).chunk(2, dim=-1)
    rows, weight, weight_scale = x, feedforward.interleave(w13), None
    if eight_bit:
        (rows, scale), (weight, weight_scale) = quantized(x, 0.1), quantized_weight(weight)
    out = torch.full((len(x), hidden), float("nan"), device="cuda", dtype=torch.float16)
    feedforward.swiglu(rows, weight, scale, bias, tokens=tokens, out=out, weight_scale=weight_scale)
    if eight_bit:
        narrow = torch.full(out.shape, 99, device="cuda", dtype=torch.int8)
        steps = torch.full((hidden_groups(hidden), len(x)), float("nan"), device="cuda")
        feedforward.swiglu(
            rows,
            weight,
            scale,
            bias,
            tokens=tokens,
            out=narrow,
            weight_scale=weight_scale,
            out_scale=steps,
        )
        assert relative(widened_hidden(narrow, steps, torch.float32), out) < EIGHT_BITS
    shifted = gate + bias.double().repeat_interleave(tokens, dim=0)
    bound = EIGHT_BITS if eight_bit else ROUNDING[torch.float16]
    assert relative(out, functional.silu(shifted) * value) < bound


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize(
    ("dim", "depth"), [(768, 768), (768, 3072), (1024, 4096), (1280, 5120), (96, 160)]
)
def test_a_product_joins_the_residual(dim: int, depth: int, eight_bit: bool) -> None:
    torch.manual_seed(dim)
    rows = 5 * 384
    x = torch.randn(rows, dim, device="cuda", dtype=torch.float16)
    a = torch.randn(rows, depth, device="cuda", dtype=torch.float16)
    weight = torch.randn(dim, depth, device="cuda", dtype=torch.float16) * depth**-0.5
    scales = None
    if eight_bit:
        narrow = torch.empty_like(a, dtype=torch.int8)
        steps = torch.empty(hidden_groups(depth), rows, device="cuda")
        quantize_hidden(a, narrow, steps)
        a, (weight, weight_scale) = narrow, quantized_weight(weight)
        scales = (steps, weight_scale)
        wide = widened_hidden(a, steps, torch.float64), weight.double() * weight_scale[:, None]
    else:
        wide = a.double(), weight.double()
    expected = x.double() + wide[0] @ wide[1].T
    scale = add_product(x, a, weight, 0.1, members=5, scales=scales)
    assert relative(x, expected) < ROUNDING[torch.float16]
    assert relative(scale, (expected.square().mean(dim=1) + 0.1).rsqrt()) < 1e-4


@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
def test_projection(heads: int, kv_heads: int) -> None:
    torch.manual_seed(heads)
    members, tokens, block, dim, every = 2, 384, 128, heads * 64, heads + 2 * kv_heads
    x = torch.randn(members * tokens, dim, device="cuda", dtype=torch.float16)
    width = -(-(every * 64 + 3 * heads) // 64) * 64
    weight = torch.randn(width, dim, device="cuda", dtype=torch.float16) * dim**-0.5
    angles = torch.rand(tokens, 32, device="cuda") * 6
    scale = row_scale(x, 0.1)
    plain = ((x.double() * scale[:, None]) @ weight.double().T).unflatten(0, (members, tokens))
    value_type = attention.value_type(x.device, x.dtype)
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
        value_type=value_type,
    )
    parts = plain[..., : every * 64].unflatten(-1, (every, 64))
    turned = rotate(parts[:, :, : heads + kv_heads], Rotation(angles.cos(), angles.sin()))
    parts = torch.cat([turned, parts[:, :, heads + kv_heads :]], dim=2)
    expected = torch.cat([parts.flatten(2), plain[..., every * 64 :]], dim=-1).flatten(0, 1)
    values = slice((heads + kv_heads) * 64, every * 64)
    assert relative(found[:, : values.start], expected[:, : values.start]) < ROUNDING[x.dtype]
    assert relative(found[:, values.stop :], expected[:, values.stop :]) < ROUNDING[x.dtype]
    narrow = found[:, values].view(value_type)
    assert relative(narrow, expected[:, values]) < VALUE_ROUNDING
    averages = parts.unflatten(1, (-1, block)).mean(dim=2).flatten(0, 1)
    assert relative(means, averages) < 1e-5
