"""The 8-bit maps keep what an ensemble is for: its spread, and the power at every scale."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mosaic_core.attention.kernels import eight_bit
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.parity import run_parity
from mosaic_core.rollout import Engine

BOUND = 0.04  # of the ratio to float32, for every channel and every zonal wavenumber
MEMBERS = 16  # the spread of the two or three of the cases is chance


def in_eight_bits(model: Mosaic) -> Mosaic:
    """The rounding of the engine's int8 maps put into the network itself."""

    def row(_map: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        rows = inputs[0].flatten(0, -2)
        values, step = eight_bit.quantized_weight(rows)
        return ((values * step[:, None]).view(inputs[0].shape),)

    def hidden(_map: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        rows = inputs[0].flatten(0, -2)
        values = torch.empty(rows.shape, dtype=torch.int8)
        scale = torch.empty(eight_bit.hidden_groups(rows.shape[1]), len(rows))
        eight_bit.quantize_hidden(rows, values, scale)
        return (eight_bit.widened_hidden(values, scale, rows.dtype).view(inputs[0].shape),)

    for name, layer in model.named_modules():
        rounded = {"w13": row, "w2": hidden}.get(name.rpartition(".")[2])
        if isinstance(layer, nn.Linear) and rounded:
            values, step = eight_bit.quantized_weight(layer.weight.data)
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


def with_more_members(case: Path, folder: Path) -> Path:
    """The case with made-up noise for MEMBERS members, and nothing to compare with."""
    for suffix in (".json", ".pt"):
        shutil.copy(case.with_suffix(suffix), folder)
    with np.load(case.with_suffix(".npz")) as kept:
        arrays = {name: kept[name] for name in kept.files if not name.startswith("tap/")}
    steps, _, width = arrays["noise"].shape
    noise = np.random.default_rng(0).standard_normal((steps, MEMBERS, width))
    arrays["noise"] = noise.astype(np.float32)
    arrays["trajectory"] = np.zeros((MEMBERS, *arrays["trajectory"].shape[1:]), np.float32)
    np.savez(folder / f"{case.name}.npz", allow_pickle=False, **arrays)
    return folder / case.name


@pytest.mark.parametrize("name", ["micro-hres", "micro-era5"])
def test_spread_and_spectra_stay_within_bounds(name: str, golden: Path, tmp_path: Path) -> None:
    case = with_more_members(golden / name, tmp_path)
    exact, narrow = (states(case, change) for change in (lambda model: model, in_eight_bits))
    assert 1e-3 < (narrow - exact).norm() / exact.norm() < 0.1

    def spread(x: Tensor) -> Tensor:
        return x.var(dim=1).mean(dim=(1, 2)).sqrt()

    def power(x: Tensor) -> Tensor:
        return torch.fft.rfft(x, dim=2).abs().square().mean(dim=(1, 3, 4))

    for measure in (spread, power):
        ratio = measure(narrow) / measure(exact)
        assert float((ratio - 1).abs().max()) < BOUND
