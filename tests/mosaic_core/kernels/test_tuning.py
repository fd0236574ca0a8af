"""Choosing the portable kernels' tiles: what is kept, what is not believed, what is not chosen."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import triton

from mosaic_core.attention.kernels import choices
from mosaic_core.attention.kernels.choices import CANDIDATES, Choice, choice, keep, kept, table_path
from mosaic_core.attention.kernels.devices import Device
from mosaic_core.attention.kernels.tuning import fastest

GPU = Device("A Card (of 24 GB)", (8, 6), 82, 99 * 1024)
TABLE = {kernel: candidates[2] for kernel, candidates in CANDIDATES.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Triton's folder of compiled kernels, for this test alone."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    choices.kept.cache_clear()
    yield tmp_path
    choices.kept.cache_clear()


def test_a_kept_table_is_read_by_the_next_process_and_by_the_same_kind_of_gpu_only() -> None:
    assert kept(GPU) is None
    assert choice(GPU, "attention") == Choice()
    keep(GPU, TABLE)
    choices.kept.cache_clear()
    assert kept(GPU) == TABLE
    assert choice(GPU, "swiglu") == CANDIDATES["swiglu"][2]
    assert choice(replace(GPU, name="Another"), "swiglu") == Choice()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"warps": 4', '"warps": 3'),
        lambda _: json.dumps({"choices": {"attention": 4}}),
        lambda _: "[]",
    ],
)
def test_a_damaged_table_is_not_used(
    damage: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    keep(GPU, TABLE)
    path = table_path(GPU)
    path.write_text(damage(path.read_text()))
    choices.kept.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choice(GPU, "attention") == Choice()
    assert str(path) in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "mosaic-ops").write_text("in the way")
    keep(GPU, TABLE)
    assert "cannot be kept" in caplog.text


def test_the_quickest_is_taken_unless_a_bit_differs() -> None:
    times = {Choice(): 3.0, Choice(8): 1.0, Choice(4, 2): 2.0}
    chosen: list[Choice] = []

    def launch(candidate: Choice) -> torch.Tensor:
        chosen.append(candidate)
        bits = torch.ones(3)
        return bits.nextafter(bits + 1) if candidate == Choice(8) else bits

    def clock(run: Callable[[], object]) -> float:
        run()
        return times[chosen[-1]]

    assert fastest(launch, list(times), clock) == Choice(4, 2)


def test_what_does_not_fit_the_gpu_is_left_out() -> None:
    def launch(candidate: Choice) -> torch.Tensor:
        if candidate.stages == 4 and len(calls) > 2:  # compiles, and cannot be loaded
            raise triton.runtime.errors.OutOfResources(200_000, 101_376, "shared memory")
        calls.append(candidate)
        return torch.ones(3)

    calls: list[Choice] = []
    assert fastest(launch, [Choice(), Choice(4, 4)], lambda _: 1.0) == Choice()
