"""The 8-bit maps keep what an ensemble is for: its spread, and the power at every scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mosaic_core.attention.kernels.norms import quantized_weight
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.parity import run_parity
from mosaic_core.rollout import Engine

BOUND = 0.06  # of the ratio to float32, for every channel and every zonal wavenumber
NARROW = ("to_q", "to_k", "to_v", "to_strategy_combine_mlp", "w13")


def in_eight_bits(model: Mosaic) -> Mosaic:
    """The rounding of the engine's int8 maps put into the network itself."""

    def rounded(_map: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        step = inputs[0].abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
        return ((inputs[0] / step).round() * step,)

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(NARROW) and "interp" not in name:
            values, step = quantized_weight(layer.weight.data)
            layer.weight.data = values * step[:, None]
            layer.register_forward_pre_hook(rounded)
    return model


class Recorded:
    """A network as an engine that keeps its states."""

    def __init__(self, model: Mosaic) -> None:
        self.model = model
        self.device, self.batch_size = model.device, model.batch_size
        self.states: list[Tensor] = []

    def step(self, *inputs: Tensor) -> Tensor:
        self.states.append(self.model.step(*inputs))
        return self.states[-1]


def states(case: Path, change: Callable[[Mosaic], Mosaic]) -> Tensor:
    """(step, member, longitude, latitude, channel), normalised."""
    made: list[Recorded] = []

    def engine(model: Mosaic, _members: int) -> Engine:
        made.append(Recorded(change(model)))
        return made[0]

    run_parity(case, engine=engine)
    geometry = made[0].model.geometry
    return torch.stack(made[0].states).unflatten(2, (geometry.longitudes, geometry.latitudes))


@pytest.mark.parametrize("case", ["micro-hres", "micro-era5"])
def test_spread_and_spectra_stay_within_bounds(case: str, golden: Path) -> None:
    exact, narrow = (
        states(golden / case, change) for change in (lambda model: model, in_eight_bits)
    )
    assert 1e-3 < (narrow - exact).norm() / exact.norm() < 0.1

    def spread(x: Tensor) -> Tensor:
        return x.var(dim=1).mean(dim=(1, 2)).sqrt()

    def power(x: Tensor) -> Tensor:
        return torch.fft.rfft(x, dim=2).abs().square().mean(dim=(1, 3, 4))

    for measure in (spread, power):
        ratio = measure(narrow) / measure(exact)
        assert float((ratio - 1).abs().max()) < BOUND
