"""The portable kernels on a GPU: their tiles measured once, kept, and without a change of bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import triton

from mosaic_core.attention.kernels import choices, tuning
from mosaic_core.attention.kernels.choices import CANDIDATES, kept, table_path
from mosaic_core.attention.kernels.devices import Device, describe
from mosaic_core.benchmark import random_bundle, smooth_state
from mosaic_core.model.checkpoint import load_model
from mosaic_core.model.config import builtin_config
from mosaic_core.model.fast import FastEngine
from mosaic_core.rollout import forecast


@pytest.fixture(autouse=True)
def portable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every GPU without kernels of its own, and nothing kept of it yet."""
    monkeypatch.setattr(Device, "hopper", False)
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "cache"))
    choices.kept.cache_clear()
    yield
    choices.kept.cache_clear()


def last_step(folder: Path, cuda: torch.device) -> np.ndarray:
    model = load_model(folder, "mini")
    engine = FastEngine(model, cuda, batch_size=2)
    state = smooth_state(builtin_config("mini"))
    *_, last = forecast(model, state, numbers=(0, 1, 2), steps=2, engine=engine)
    return last.fields.copy()


def test_measured_once_kept_and_of_the_same_bits(
    tmp_path: Path, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = random_bundle(tmp_path / "mini", "mini")
    with monkeypatch.context() as untuned:
        untuned.setattr("mosaic_core.model.fast.ensure_tuned", lambda _: None)
        before = last_step(bundle, cuda)
    assert kept(describe(cuda)) is None
    after = last_step(bundle, cuda)
    table = kept(describe(cuda))
    assert table is not None
    assert all(table[kernel] in CANDIDATES[kernel] for kernel in CANDIDATES)
    assert table_path(describe(cuda)).exists()
    assert np.array_equal(before, after)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    choices.kept.cache_clear()  # as in the next process
    monkeypatch.setattr(tuning, "fastest", never)
    assert np.array_equal(last_step(bundle, cuda), after)
