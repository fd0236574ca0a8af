"""The fast engine on a GPU: golden cases, one member alone, values that are not finite, memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from mosaic_core.benchmark import random_bundle, smooth_state
from mosaic_core.contract.errors import ModelError
from mosaic_core.devices import forecast_on, visible_gpus
from mosaic_core.model.checkpoint import load_model
from mosaic_core.model.config import BottleneckConfig, builtin_config
from mosaic_core.model.fast import FastEngine, fitting_batch
from mosaic_core.model.fast_output import PinnedRing
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.parity import fast_engine, run_parity
from mosaic_core.rollout import forecast

BATCH = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Mosaic:
    return load_model(random_bundle(tmp_path_factory.mktemp("mini"), "mini"), "mini")


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    return smooth_state(builtin_config("mini"))


def roll(
    model: Mosaic, state: xr.Dataset, numbers: tuple[int, ...], engine: FastEngine, steps: int = 3
) -> Iterator[np.ndarray]:
    stream = forecast(
        model, state, numbers=numbers, steps=steps, engine=engine, to_host=PinnedRing()
    )
    return (step.fields.copy() for step in stream)


@pytest.mark.parametrize("case", ["micro-hres", "micro-era5"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 3e-2)])
def test_golden_cases(case: str, dtype: str, tolerance: float, golden: Path) -> None:
    report = run_parity(golden / case, device="cuda", engine=fast_engine("cuda", dtype))
    assert report.runner == "FastEngine"
    assert report.rms_per_step[0] < tolerance


def test_one_member_alone_has_the_bits_it_has_in_the_ensemble(
    model: Mosaic, state: xr.Dataset, cuda: torch.device
) -> None:
    together = list(roll(model, state, tuple(range(5)), FastEngine(model, cuda, batch_size=BATCH)))
    alone = list(roll(model, state, (3,), FastEngine(model, cuda, batch_size=BATCH)))
    assert all(np.array_equal(many[3], one[0]) for many, one in zip(together, alone, strict=True))
    assert not np.array_equal(together[-1][3], together[-1][2])


def test_the_engine_is_close_to_the_network(
    model: Mosaic, state: xr.Dataset, cuda: torch.device
) -> None:
    engine = FastEngine(model, cuda, batch_size=BATCH)
    *_, fast = roll(model, state, (0, 1), engine, steps=1)
    plain = [step.fields for step in forecast(model, state, numbers=(0, 1), steps=1)][-1]
    assert np.linalg.norm(fast - plain) < 2e-2 * np.linalg.norm(plain)


def test_a_value_that_is_not_finite_names_member_channel_and_step(
    model: Mosaic, state: xr.Dataset, cuda: torch.device
) -> None:
    class Broken(FastEngine):
        def compute(self) -> torch.Tensor:
            last = torch.arange(self.batch_size, device=cuda) == self.batch_size - 1
            return super().compute().masked_fill(last[:, None, None], torch.nan)

    engine = Broken(model, cuda, batch_size=BATCH)
    with pytest.raises(ModelError, match=r"forecast step 1.*member 6 ") as refused:
        list(roll(model, state, (5, 6), engine))
    assert "member 5" not in str(refused.value)


def test_another_batch_than_the_engines_is_refused(model: Mosaic, cuda: torch.device) -> None:
    engine = FastEngine(model, cuda, batch_size=BATCH)
    history = torch.zeros(1, 4, model.geometry.points, 82, device=cuda)
    with pytest.raises(ModelError, match="do not fit the engine"):
        engine.step(history, torch.zeros(4), torch.zeros(1, 32))


def test_batches_shrink_to_the_memory_and_then_refuse(cuda: torch.device) -> None:
    config = builtin_config("hres")
    assert 1 <= fitting_batch(config, 29040, cuda, 1000) < 1000
    stages = config.stages[0].model_copy(update={"nside": 8192})
    deep = BottleneckConfig(**config.bottleneck.model_dump() | {"nside": 4096})
    huge = config.model_copy(update={"stages": (stages,), "bottleneck": deep})
    with pytest.raises(ModelError, match=r"one member needs [\d.]+ GiB"):
        fitting_batch(huge, 29040, cuda, None)


def test_members_split_over_engines_have_the_same_bits(
    model: Mosaic, state: xr.Dataset, cuda: torch.device
) -> None:
    devices = visible_gpus() if torch.cuda.device_count() > 1 else [cuda, cuda]
    engines = [FastEngine(model, device, batch_size=BATCH) for device in devices]
    stream = forecast_on(engines, model, state, numbers=range(5), steps=3)
    split = [(step.numbers, step.fields.copy()) for step in stream]
    single = list(roll(model, state, tuple(range(5)), FastEngine(model, cuda, batch_size=BATCH)))
    assert {numbers for numbers, _ in split} == {tuple(range(5))}
    assert all(np.array_equal(ours, one) for (_, ours), one in zip(split, single, strict=True))
