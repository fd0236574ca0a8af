"""A rollout that is killed goes on from its last restart state, with the same bits."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from tests.flows import ensemble_job
from tests.flows.ensemble_job import EVERY, MEMBERS, STEPS

KILLS = int(os.environ.get("MOSAIC_OPS_TEST_KILLS", "1"))


def job(folder: Path, killed_after: int = -1) -> int:
    """Run the program; how many times the network computed a member's step."""
    log = folder / "computed.txt"
    log.unlink(missing_ok=True)
    command = [sys.executable, ensemble_job.__file__, str(folder), str(killed_after)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == (0 if killed_after < 0 else -signal.SIGKILL), ended.stderr
    return len(log.read_text().splitlines()) if log.exists() else 0


def staged(folder: Path) -> Path:
    (run,) = (ensemble_job.settings(folder).staging / ensemble_job.CYCLE.id).iterdir()
    return run


def stored(folder: Path) -> dict[str, str]:
    """Digests of the objects of every array and of every table; metadata tell when they were
    made, and figures are drawn."""
    run = staged(folder)
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix not in (".json", ".png", ".svg")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    ensemble_job.make_inputs(folder)
    assert job(folder) == MEMBERS * STEPS
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The inputs of that run, and nothing else."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/weights").symlink_to(whole / "data/weights")
    (tmp_path / "state.zarr").symlink_to(whole / "state.zarr")
    return tmp_path


def test_killed_at_random_leads_it_gives_the_same_bits_and_computes_little_again(
    whole: Path, folder: Path
) -> None:
    """And once the forecast is stored, its products are made again without the model."""
    leads = sorted(random.Random(11).sample(range(1, STEPS), KILLS))
    computed = sum(job(folder, lead) for lead in leads) + job(folder)
    assert computed <= MEMBERS * (STEPS + KILLS * (EVERY - 1))
    assert stored(folder) == stored(whole)
    run = staged(folder)
    assert not (run / "restart").exists()
    (run / "complete.json").unlink()
    (left := run / ".tracks.csv.0123abcd.tmp").write_bytes(b"half, of a writer that was killed")
    (run / "spectra.zarr/zarr.json").unlink()
    assert job(folder) == 0
    assert not left.exists()
    assert stored(folder) == stored(whole)


def test_a_gpu_that_fails_is_told_with_what_is_stored_and_how_to_go_on(
    whole: Path, folder: Path
) -> None:
    command = [sys.executable, ensemble_job.__file__, str(folder), "-1", "4"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    said = ended.stderr
    assert "DeviceError: cycle 2026-11-23T00Z, forecast step 4: the GPU failed: CUDA error" in said
    assert "members 0, 1; 4 of 6 leads are stored in " in said
    assert "mosaic-ops run 2026-11-23T00Z with the same settings goes on from step 2" in said
    assert "more for experts" not in said.rpartition("DeviceError")[2]
    assert job(folder) == MEMBERS * (STEPS - 2)
    assert stored(folder) == stored(whole)


def test_every_store_tells_the_kind_of_device(whole: Path) -> None:
    """It decides the bits: a member is computed again to the bit on that kind only."""
    for name in ("forecast", "points", "ensemble", "initial_state"):
        with xr.open_zarr(staged(whole) / f"{name}.zarr", chunks=None) as dataset:
            assert dataset.attrs["device"] == "cpu"
