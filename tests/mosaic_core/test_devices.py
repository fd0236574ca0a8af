from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr

from mosaic_core.benchmark import run_benchmark
from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.devices import devices_named, forecast_on
from mosaic_core.model.fast import accelerated
from mosaic_core.model.mosaic import Mosaic


def test_a_named_cpu_is_the_only_device() -> None:
    assert devices_named("cpu") == [torch.device("cpu")]


def test_no_engine_is_refused(small_model: Mosaic, analyses: xr.Dataset) -> None:
    with pytest.raises(InputError, match="no GPU"):
        forecast_on([], small_model, analyses, numbers=(0,), steps=1)


def test_without_a_gpu_one_line_says_that_the_network_runs(
    small_model: Mosaic, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert accelerated(small_model, torch.device("cpu")) is None
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA device: the reference network runs on cpu"
    ]


@pytest.mark.parametrize(
    ("precision", "message"),
    [("int8", "int8 has kernels for Hopper GPUs only, not for cpu"), ("fp4", "unknown precision")],
)
def test_a_precision_that_does_not_run_here_is_refused(
    small_model: Mosaic, precision: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        accelerated(small_model, torch.device("cpu"), precision=precision)


@pytest.mark.parametrize(("members", "steps"), [(0, 3), (1, 2)])
def test_a_benchmark_too_small_to_measure_is_refused(members: int, steps: int) -> None:
    with pytest.raises(InputError, match="three steps"):
        run_benchmark("mini", weights=Path("nowhere"), members=members, steps=steps, device="cpu")
