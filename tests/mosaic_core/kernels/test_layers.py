"""The kernels around attention against plain PyTorch, at sizes that fill no tile."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mosaic_core.model.layers import Interpolation, rms_norm
from mosaic_core.model.mesh import Neighbors, Rotation
from mosaic_core.model.transformer import rotate

EPS = 1e-3  # large enough that forgetting it fails


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_row_scale(device: torch.device) -> None:
    from mosaic_core.attention.kernels.norms import row_scale

    x = draw(5, 30) * torch.tensor([1e-2, 1, 10, 100, 0.1])[:, None]
    for twice, expected in ((False, rms_norm(x, EPS)), (True, rms_norm(rms_norm(x, EPS), EPS))):
        scale = row_scale(x.to(device), EPS, twice=twice).cpu()
        torch.testing.assert_close(x * scale[:, None], expected)


@pytest.mark.parametrize("silu", [False, True])
def test_normed_sum(silu: bool, device: torch.device) -> None:
    from mosaic_core.attention.kernels.norms import normed_sum

    x, table, skip = draw(6, 20), draw(3, 20, seed=1), draw(6, 20, seed=2)
    expected = rms_norm(x + table.repeat(2, 1) + skip, EPS)
    out = torch.full((6, 20), float("nan"), device=device)
    normed_sum(x.to(device), EPS, table=table.to(device), skip=skip.to(device), silu=silu, out=out)
    torch.testing.assert_close(out.cpu(), functional.silu(expected) if silu else expected)


def test_scaled_silu(device: torch.device) -> None:
    from mosaic_core.attention.kernels.norms import scaled_silu

    x, scale = draw(7, 20), draw(7, seed=1).abs()
    result = scaled_silu(x.clone().to(device), scale.to(device)).cpu()
    torch.testing.assert_close(result, functional.silu(x * scale[:, None]))


@pytest.mark.parametrize("rotated", [False, True])
def test_finish_projection(rotated: bool, device: torch.device) -> None:
    from mosaic_core.attention.kernels.projection import finish_projection

    members, tokens, block, dim, heads, kv_heads, size = 2, 36, 12, 40, 4, 2, 12
    width = (heads + 2 * kv_heads) * size + 3 * heads + 4
    x, weight = draw(members * tokens, dim), draw(width, dim, seed=1)
    angles = draw(tokens, size // 2, seed=2)
    projected = (x @ weight.T).to(device)
    means = torch.full((members * tokens // block, heads + 2 * kv_heads, size), float("nan"))
    means = means.to(device)
    turn = (angles.cos().to(device), angles.sin().to(device)) if rotated else None
    scale = (x.square().mean(dim=1) + EPS).rsqrt().to(device)
    finish_projection(
        projected,
        scale,
        turn,
        means,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        tokens=tokens,
        block=block,
        value_type=torch.float32,
    )
    linear = (rms_norm(x, EPS) @ weight.T).unflatten(0, (members, tokens))
    parts = linear[..., : (heads + 2 * kv_heads) * size].unflatten(-1, (-1, size))
    if rotated:
        turned = rotate(parts[..., : heads + kv_heads, :], Rotation(angles.cos(), angles.sin()))
        parts = torch.cat([turned, parts[..., heads + kv_heads :, :]], dim=2)
    expected = torch.cat([parts.flatten(2), linear[..., parts.shape[2] * size :]], dim=-1)
    found = projected.cpu().unflatten(0, (members, tokens))
    used = width - 4
    torch.testing.assert_close(found[..., :used], expected[..., :used], rtol=1e-4, atol=1e-5)
    averages = parts.unflatten(1, (-1, block)).mean(dim=2).flatten(0, 1)
    torch.testing.assert_close(means.cpu(), averages, rtol=1e-4, atol=1e-5)


def test_value_heads_are_written_in_their_own_type(device: torch.device) -> None:
    from mosaic_core.attention.kernels.projection import project

    heads, kv_heads, size, tokens = 2, 1, 8, 6
    width, first = (heads + 2 * kv_heads) * size + 3 * heads, (heads + kv_heads) * size
    x, weight = draw(2 * tokens, 16).half().to(device), draw(width, 16, seed=1).half().to(device)
    found, _means = project(
        x,
        weight,
        torch.ones(len(x), device=device),
        None,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        tokens=tokens,
        block=3,
        value_type=torch.bfloat16,
    )
    plain = x @ weight.T
    values = slice(first, first + kv_heads * size)
    torch.testing.assert_close(found[:, values].view(torch.bfloat16), plain[:, values].bfloat16())
    torch.testing.assert_close(found[:, :first], plain[:, :first])
    torch.testing.assert_close(found[:, values.stop :], plain[:, values.stop :])


def test_rows_and_weights_in_eight_bits(device: torch.device) -> None:
    from mosaic_core.attention.kernels.eight_bit import quantized, quantized_weight

    x, weight = draw(7, 40) * torch.logspace(-4, 4, 7)[:, None], draw(9, 40, seed=1)
    x[3] = 0
    rows, scale = (part.cpu() for part in quantized(x.to(device), EPS))
    assert rows.dtype == torch.int8
    assert torch.equal(rows.abs().amax(dim=1), torch.tensor([127] * 3 + [0] + [127] * 3).to(rows))
    normed = rms_norm(x, EPS)
    worst = (rows * scale[:, None] - normed).abs().amax(dim=1)
    assert bool((worst <= normed.abs().amax(dim=1) / 253).all())
    values, step = quantized_weight(weight)
    assert bool(((values * step[:, None] - weight).abs() <= step[:, None] * 0.501).all())


@pytest.mark.parametrize("width", [256, 40])
def test_hidden_layers_in_eight_bits_have_a_scale_for_each_group(width: int) -> None:
    from mosaic_core.attention.kernels import eight_bit

    x = draw(6, width) * torch.logspace(-3, 3, 6)[:, None]
    values = torch.empty(6, width, dtype=torch.int8)
    scale = torch.empty(eight_bit.hidden_groups(width), 6)
    eight_bit.quantize_hidden(x, values, scale)
    assert len(scale) == (2 if width == 256 else 1)
    again = eight_bit.widened_hidden(values, scale, torch.float32)
    steps = scale.T.repeat_interleave(width // len(scale), dim=1)
    assert bool(((again - x).abs() <= steps * 0.501).all())


def test_sums_of_squares_in_parts_make_the_scale(device: torch.device) -> None:
    from mosaic_core.attention.kernels.norms import row_scale, scale_of_sums

    x = draw(5, 30).to(device)
    sums = x.square().unflatten(1, (3, 10)).sum(dim=2).T.contiguous()
    torch.testing.assert_close(scale_of_sums(sums, 30, EPS), row_scale(x, EPS))


def test_a_product_joins_the_residual_and_its_norm_is_known(device: torch.device) -> None:
    from mosaic_core.attention.kernels.norms import row_scale
    from mosaic_core.attention.kernels.residual import add_product

    x, a, weight = (draw(*shape).to(device) for shape in ((5, 30), (5, 8), (30, 8)))
    expected = x + a @ weight.T
    scale = add_product(x, a, weight, EPS, members=5)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(scale, row_scale(expected, EPS))


@pytest.mark.parametrize("hidden", [40, 256])
def test_swiglu(hidden: int, device: torch.device) -> None:
    from mosaic_core.attention.kernels.choices import Choice
    from mosaic_core.attention.kernels.feedforward import interleave, portable_swiglu

    members, tokens, dim = 2, 20, 24
    x, w13 = draw(members * tokens, dim), draw(2 * hidden, dim, seed=1)
    scale, bias = draw(len(x), seed=2).abs(), draw(members, hidden + 3, seed=3)
    out = torch.full((len(x), hidden), float("nan"), device=device)
    portable_swiglu(
        x.to(device),
        interleave(w13).to(device),
        scale.to(device),
        bias.to(device)[:, :hidden],
        tokens=tokens,
        out=out,
        choice=Choice(tile=(16, 16, 16)),
    )
    gate, value = ((x * scale[:, None]) @ w13.T).chunk(2, dim=-1)
    shifted = gate + bias[:, :hidden].repeat_interleave(tokens, dim=0)
    torch.testing.assert_close(out.cpu(), functional.silu(shifted) * value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "dim", "k"), [(2, 24, 5), (3, 12, 8)])
def test_interpolation_with_folded_keys(heads: int, dim: int, k: int, device: torch.device) -> None:
    from mosaic_core.attention.kernels.interpolation import fold_keys, interpolate
    from mosaic_core.attention.kernels.norms import row_scale

    members, sources, targets = 2, 11, 9
    torch.manual_seed(0)
    layer = Interpolation(dim, heads, EPS)
    layer.to_o.weight.data = torch.eye(dim)
    indices = torch.randint(0, sources, (targets, k))
    neighbors = Neighbors(indices, functional.normalize(draw(targets, k, 3), dim=-1))
    x = draw(members, sources, dim, seed=1)
    with torch.no_grad():
        expected = layer(x, neighbors)
        keys, values = layer.to_kv.weight.chunk(2)
        weight = torch.cat([values, fold_keys(layer.to_q.weight, keys, heads)])
        projected = (x @ weight.T).to(device)
    scale = row_scale(x.flatten(0, 1).to(device), EPS)
    out = torch.full((members, targets, dim), float("nan"), device=device)
    interpolate(
        projected,
        scale,
        indices.int().to(device),
        neighbors.directions.to(device),
        heads=heads,
        out=out,
    )
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-4, atol=1e-5)
