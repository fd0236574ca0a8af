from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest import archive as archive_module
from ingest.archive import analysis_digest, append_analysis, provenance, read_analysis
from ingest.correction import correct_analysis
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError, InputError
from mosaic_core.contract.schema import channels_to_dataset

ROOT = Path(__file__).parents[2]


def made(cycle: Cycle, value: float, source: str = "first") -> xr.Dataset:
    planes = np.full((1, 82, 121, 240), value, np.float32) + np.arange(240, dtype=np.float32)
    return channels_to_dataset(planes, {"time": [cycle.init_time]}).assign_attrs(source=source)


@pytest.fixture
def archive(tmp_path: Path, cycle: Cycle) -> Path:
    path = tmp_path / "analyses.zarr"
    for hours in (-6, 0, 6):
        append_analysis(path, made(cycle.shift(hours), float(hours)))
    return path


def test_a_correction_replaces_the_values_and_is_on_record(archive: Path, cycle: Cycle) -> None:
    before = read_analysis(archive, cycle.init_time)
    reference = correct_analysis(archive, made(cycle, 99.0, "second"), "the first was rotated")
    after = read_analysis(archive, cycle.init_time)
    assert analysis_digest(after) == reference.sha256
    record = provenance(archive)[cycle.init_time]
    assert record["source"] == "second"
    (entry,) = record["corrections"]
    assert entry["reason"] == "the first was rotated"
    assert entry["replaced_sha256"] == analysis_digest(before)
    assert entry["replaced_source"] == "first"
    for hours in (-6, 6):
        shifted = read_analysis(archive, cycle.shift(hours).init_time)
        assert analysis_digest(shifted) == analysis_digest(made(cycle.shift(hours), float(hours)))
    assert [p.name for p in archive.parent.iterdir() if "correction" in p.name] == []


def test_corrections_add_up(archive: Path, cycle: Cycle) -> None:
    for value in (1.0, 2.0):
        correct_analysis(archive, made(cycle, value), f"try {value}")
    entries = provenance(archive)[cycle.init_time]["corrections"]
    assert [entry["reason"] for entry in entries] == ["try 1.0", "try 2.0"]


def test_the_same_values_are_no_correction(archive: Path, cycle: Cycle) -> None:
    correct_analysis(archive, made(cycle, 0.0), "nothing")
    assert "corrections" not in provenance(archive)[cycle.init_time]


def test_a_reason_is_asked_for(archive: Path, cycle: Cycle) -> None:
    with pytest.raises(InputError, match="needs a reason"):
        correct_analysis(archive, made(cycle, 1.0), " ")


def test_only_what_is_there_can_be_corrected(archive: Path, cycle: Cycle) -> None:
    with pytest.raises(ArchiveError, match="nothing to correct"):
        correct_analysis(archive, made(cycle.shift(12), 1.0), "typo")


@pytest.mark.parametrize("survives", [True, False])
def test_a_writer_that_died_is_finished_or_forgotten(
    survives: bool, archive: Path, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies right after (or before) the marker that makes the correction certain."""
    target = "roll_forward" if survives else "write_atomic"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"ingest.correction.{target}", die)
    with pytest.raises(KeyboardInterrupt):
        correct_analysis(archive, made(cycle, 99.0), "because")
    monkeypatch.undo()
    append_analysis(archive, made(cycle.shift(12), 12.0))
    expected = made(cycle, 99.0 if survives else 0.0)
    found = read_analysis(archive, cycle.init_time)
    assert analysis_digest(found) == analysis_digest(expected)
    assert list(archive.parent.glob(".*correction")) == []


def test_half_moved_values_are_refused_until_the_next_writer(
    archive: Path, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.correction.roll_forward", lambda *_: None)
    correct_analysis(archive, made(cycle, 99.0), "because")
    monkeypatch.undo()
    (folder,) = archive.parent.glob(".*correction")
    chunk = "temperature/c/1/0/0/0"
    shutil.copy(folder / "moves" / chunk, archive / chunk)
    with pytest.raises(ArchiveError, match="do not match their digest"):
        read_analysis(archive, cycle.init_time)
    with archive_module.writing(archive):
        pass
    assert analysis_digest(read_analysis(archive, cycle.init_time)) == analysis_digest(
        made(cycle, 99.0)
    )


@pytest.mark.e2e
def test_killed_corrections_leave_the_old_or_the_new(archive: Path, cycle: Cycle) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_correction import Cycle, correct_analysis, made
print("ready", flush=True)
for value in range(1, 500):
    correct_analysis(Path({str(archive)!r}), made(Cycle.parse("2026-11-23T00Z"), float(value)), "x")
"""
    rng = np.random.default_rng(5)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(float(rng.uniform(0.05, 0.4)))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with archive_module.writing(archive):
            pass
        values = read_analysis(archive, cycle.init_time)["temperature"].values
        assert np.unique(values[..., 0]).size == 1
    assert json.dumps(provenance(archive)[cycle.init_time])
