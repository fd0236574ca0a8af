"""The fast engine against the network it was made from, at a size for the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosaic_core.contract.errors import ModelError
from mosaic_core.model.config import BottleneckConfig, ModelConfig, StageConfig
from mosaic_core.model.mesh import build_geometry
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.rollout import Engine

LEVELS = {"num_heads": 4, "block_attn_size": 12, "sparse_block_size": 6, "sparse_block_count": 2}
CONFIG = ModelConfig(
    dim=24,
    num_heads=3,
    k_neighbors=5,
    variables=("2m_temperature", "geopotential_500"),
    static_variables=("land_sea_mask",),
    num_history_steps=2,
    step_stride=1,
    norm_eps=1e-3,
    stages=(
        StageConfig(
            nside=2,
            dim=24,
            gqa_ratio=2,
            encoder_depth=1,
            decoder_depth=0,
            **LEVELS | {"num_heads": 2},
        ),
    ),
    bottleneck=BottleneckConfig(nside=1, dim=32, depth=1, mlp_ratio=2.5, **LEVELS),
)


@pytest.fixture(scope="module")
def model() -> Mosaic:
    torch.manual_seed(0)
    longitude, latitude = np.arange(0, 360, 60.0), np.linspace(-90, 90, 5)
    static = np.random.default_rng(0).standard_normal((6, 5, 1)).astype(np.float32)
    return Mosaic(CONFIG, build_geometry(CONFIG, longitude, latitude, static))


def test_a_step_equals_the_networks(model: Mosaic, device: torch.device) -> None:
    from mosaic_core.model.fast import FastEngine

    engine: Engine = FastEngine(model, device, batch_size=2, dtype=torch.float32)
    history, noise = torch.randn(2, 2, 30, 2), torch.randn(2, 32)
    times = torch.tensor([0.1, -0.2, 0.3, 0.9])
    with torch.no_grad():
        expected = model.step(history, times, noise)
    found = engine.step(history.to(device), times.to(device), noise.to(device)).cpu()
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert not torch.equal(found[0], found[1])


def test_eight_bits_stay_close(model: Mosaic, device: torch.device) -> None:
    from mosaic_core.model.fast import FastEngine

    inputs = (torch.randn(2, 2, 30, 2), torch.tensor([0.1, -0.2, 0.3, 0.9]), torch.randn(2, 32))
    moved = [x.to(device) for x in inputs]
    wide = FastEngine(model, device, batch_size=2, dtype=torch.float32).step(*moved).clone()
    narrow = FastEngine(model, device, batch_size=2, dtype=torch.float32, eight_bit=True)
    weights = [block for stage in narrow.weights.encoders for block in stage.blocks]
    assert {block.w13.dtype for block in weights} == {torch.int8}
    difference = float((narrow.step(*moved) - wide).norm() / wide.norm())
    assert 1e-4 < difference < 5e-2


def test_another_batch_is_refused(model: Mosaic, device: torch.device) -> None:
    from mosaic_core.model.fast import FastEngine

    engine = FastEngine(model, device, batch_size=2, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"history \(1, 2, 30, 2\).*do not fit"):
        engine.step(torch.randn(1, 2, 30, 2), torch.zeros(4), torch.randn(1, 32))


def test_the_count_of_operations_is_the_published_one() -> None:
    from mosaic_core.model.config import builtin_config
    from mosaic_core.model.fast_cost import step_flops

    total, attention = step_flops(builtin_config("era5"), 29040)
    assert total == pytest.approx(12.63e12, rel=2e-3)
    assert attention == pytest.approx(4.53e12, rel=2e-3)
