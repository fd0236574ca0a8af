"""Whole rollouts at full size: one member alone, a rollout that goes on, a GPU that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mosaic_core.benchmark import random_bundle, smooth_state
from mosaic_core.contract.errors import DeviceError
from mosaic_core.devices import forecast_on
from mosaic_core.model.checkpoint import load_model
from mosaic_core.model.config import builtin_config
from mosaic_core.model.fast import FastEngine, accelerated
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.restart import RestartFolder, Standing

LOST = """
import os
import sys
from pathlib import Path
import torch
from mosaic_core.benchmark import smooth_state
from mosaic_core.contract.errors import DeviceError
from mosaic_core.devices import forecast_on
from mosaic_core.model.checkpoint import load_model
from mosaic_core.model.config import builtin_config
from mosaic_core.model.fast import FastEngine

class Lost(FastEngine):
    calls = 0

    def step(self, *inputs):
        self.calls += 1
        if self.calls == 3:  # an index out of range is seen by the GPU, which then serves nobody
            torch.zeros(4, device="cuda")[torch.full((1,), 9, device="cuda")]
        return super().step(*inputs)

model = load_model(Path(sys.argv[1]), "mini")
engine = Lost(model, torch.device("cuda"), batch_size=2)
state = smooth_state(builtin_config("mini"))
try:
    for step in forecast_on([engine], model, state, numbers=(4, 9), steps=5):
        print("step", step.step)
except DeviceError as error:
    print(error, flush=True)
    os._exit(error.exit_code)  # in order, the process cannot end: its GPU does not answer
"""


@pytest.fixture(scope="module", params=["era5", "hres"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mosaic:
    bundle = random_bundle(tmp_path_factory.mktemp(request.param), request.param)
    return load_model(bundle, request.param)


def rolled(
    model: Mosaic, variant: str, numbers: Sequence[int], batch: int, precision: str, steps: int
) -> list[np.ndarray]:
    engine = accelerated(model, torch.device("cuda"), batch_size=batch, precision=precision)
    assert engine is not None
    state = smooth_state(builtin_config(variant))
    stream = forecast_on([engine], model, state, numbers=numbers, steps=steps)
    return [step.fields.copy() for step in stream]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_member_17_alone_has_the_bits_it_has_among_24(
    model: Mosaic, request: pytest.FixtureRequest, precision: str
) -> None:
    """Also in a batch of another size."""
    if precision == "int8" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("int8 has kernels for Hopper only")
    variant = "era5" if model.config.step_hours == 24 else "hres"
    together = [x[17] for x in rolled(model, variant, range(24), 4, precision, 3)]
    for batch in (1, 2):
        alone = [x[0] for x in rolled(model, variant, (17,), batch, precision, 3)]
        assert all(np.array_equal(*pair) for pair in zip(together, alone, strict=True))


def test_a_rollout_goes_on_from_a_restart_state(tmp_path: Path, cuda: torch.device) -> None:
    model = load_model(random_bundle(tmp_path / "weights", "mini"), "mini")
    state = smooth_state(builtin_config("mini"))
    engine = FastEngine(model, cuda, batch_size=2)
    folder = RestartFolder(tmp_path / "restart", every=2)

    def roll(start: Standing | None) -> dict[int, np.ndarray]:
        stream = forecast_on(
            [engine], model, state, numbers=range(5), steps=6, start=start, keep=folder.keep
        )
        return {step.step: step.fields.copy() for step in stream}

    whole = roll(None)
    start = folder.newest(before=5)
    assert start is not None
    assert start.step == 4
    rest = roll(start)
    assert list(rest) == [5, 6]
    assert all(np.array_equal(whole[step], fields) for step, fields in rest.items())


def test_a_gpu_that_fails_is_told_with_members_and_step(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path, "mini")
    ended = subprocess.run(
        [sys.executable, "-c", LOST, str(bundle)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == DeviceError.exit_code, ended.stdout + ended.stderr
    assert "step 1" in ended.stdout
    assert "step 5" not in ended.stdout
    assert "forecast step" in ended.stdout
    assert "the GPU failed: CUDA error: device-side assert triggered" in ended.stdout
    assert "members 4, 9" in ended.stdout
