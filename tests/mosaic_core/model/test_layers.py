from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mosaic_core.attention import reference
from mosaic_core.model.config import FLOAT32_EPSILON, BottleneckConfig
from mosaic_core.model.layers import Downsample, Interpolation, Upsample, rms_norm
from mosaic_core.model.mesh import Neighbors, healpix_radians, rotation
from mosaic_core.model.transformer import FeedForward, rotate

LEVEL = BottleneckConfig(
    nside=1,
    dim=24,
    num_heads=2,
    block_attn_size=4,
    sparse_block_size=2,
    sparse_block_count=2,
    gqa_ratio=2,
    depth=1,
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_rms_norm_is_its_formula_and_keeps_the_type() -> None:
    x = random(2, 5, 8)
    expected = x / (x.square().mean(-1, keepdim=True) + 0.5).sqrt()
    torch.testing.assert_close(rms_norm(x, 0.5), expected)
    assert rms_norm(x.half(), FLOAT32_EPSILON).dtype == torch.float16
    assert torch.equal(rms_norm(torch.zeros(3, 4), FLOAT32_EPSILON), torch.zeros(3, 4))


def test_float16_norms_do_not_overflow() -> None:
    """The mean square of 300 does not fit float16; the norm is taken in float32."""
    assert torch.equal(rms_norm(torch.full((1, 4), 300.0).half(), 0.0), torch.ones(1, 4).half())


def test_rotation_turns_adjacent_pairs_by_longitude_then_latitude() -> None:
    places = healpix_radians(1)
    table = rotation(LEVEL, places, theta=10000.0)
    x = random(1, 12, 2, 12)
    turned = rotate(x, table)
    latitude, longitude = map(float, places[5])
    for pair in range(6):
        axis = longitude if pair < 3 else latitude
        angle = axis * 10000.0 ** (-2 * (pair % 3) / 6)
        a, b = x[0, 5, 1, 2 * pair], x[0, 5, 1, 2 * pair + 1]
        expected = torch.stack(
            [a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)]
        )
        torch.testing.assert_close(turned[0, 5, 1, 2 * pair : 2 * pair + 2], expected)


def test_interpolation_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Interpolation(8, 2, FLOAT32_EPSILON)
    indices = torch.tensor([[0, 3, 2], [1, 1, 4]])
    neighbors = Neighbors(indices, torch.nn.functional.normalize(random(2, 3, 3), dim=-1))
    x = random(2, 5, 8)
    normed = rms_norm(x, FLOAT32_EPSILON)
    keys, values = normed @ layer.to_kv.weight[:8].T, normed @ layer.to_kv.weight[8:].T
    expected = torch.empty(2, 2, 8)
    for member in range(2):
        for target in range(2):
            for head in (slice(0, 4), slice(4, 8)):
                q = (neighbors.directions[target] @ layer.to_q.weight.T)[:, head]
                k, v = (t[member, indices[target]][:, head] for t in (keys, values))
                weights = torch.softmax((q * k).sum(-1) / 2, 0)
                expected[member, target, head] = weights @ v
    expected = expected @ layer.to_o.weight.T
    torch.testing.assert_close(layer(x, neighbors), expected)
    monkeypatch.setattr(reference, "SCORES_AT_ONCE", 1)
    torch.testing.assert_close(layer(x, neighbors), expected)


def test_down_and_upsampling_put_children_in_nested_order() -> None:
    down, up = Downsample(2, 3, FLOAT32_EPSILON), Upsample(3, 2, FLOAT32_EPSILON)
    x, positions, skip = random(1, 8, 2), random(2, 12), random(1, 8, 2)
    coarse = down(x, positions)
    parent = x[0, 4:].flatten() @ down.proj_x.weight.T + positions[1] @ down.proj_pos.weight.T
    torch.testing.assert_close(coarse[0, 1], rms_norm(parent, FLOAT32_EPSILON))
    fine = up(coarse, skip, positions)
    children = coarse[0, 1] @ up.proj_x.weight.T + positions[1] @ up.proj_pos.weight.T
    expected = rms_norm(children.reshape(4, 2)[2] + skip[0, 6], FLOAT32_EPSILON)
    torch.testing.assert_close(fine[0, 6], expected)


def test_noise_shifts_the_gate_of_its_own_member_only() -> None:
    layer = FeedForward(LEVEL, noise_dim=3)
    x, z = random(2, 12, 24), torch.zeros(2, 3)
    quiet = layer(x, z)
    z[1] = 1.0
    noisy = layer(x, z)
    assert torch.equal(noisy[0], quiet[0])
    gate = x[1] @ layer.w13.weight[:96].T + layer.noise_bias.weight.sum(1)
    hidden = torch.nn.functional.silu(gate) * (x[1] @ layer.w13.weight[96:].T)
    torch.testing.assert_close(noisy[1], hidden @ layer.w2.weight.T)
