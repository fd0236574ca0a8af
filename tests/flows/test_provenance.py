"""What decides a run's bits decides its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.ensemble import EnsembleRun
from flows.settings import Settings
from mosaic_core.contract.errors import InputError
from postprocess.products.requests import ProductRequest
from tests.flows.ensemble_job import CYCLE, make_inputs, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run")
    make_inputs(made)
    return made


def run_name(folder: Path, climatology: Path | None) -> str:
    request = ProductRequest(climatology=None if climatology is None else str(climatology))
    chosen: Settings = settings(folder).model_copy(update={"products": request})
    return EnsembleRun.prepare(CYCLE, folder / "state.zarr", chosen).name


def test_the_content_of_a_climatology_names_the_run_and_its_path_does_not(folder: Path) -> None:
    here, there = folder / "climate.nc", folder / "moved.nc"
    here.write_bytes(b"CDF one climate")
    there.write_bytes(b"CDF one climate")
    first = run_name(folder, here)
    assert run_name(folder, there) == first
    assert run_name(folder, None) != first
    here.write_bytes(b"CDF another climate")
    assert run_name(folder, here) != first


def test_a_climatology_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"absent.nc: no such file or store"):
        run_name(folder, folder / "absent.nc")
