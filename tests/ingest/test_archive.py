from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest import archive as archive_module
from ingest.archive import (
    analysis_digest,
    append_analysis,
    archived_times,
    provenance,
    read_analysis,
)
from ingest.archive_template import TEMPLATE, generate, render
from ingest.initial_state import initial_state
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError, DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ANALYSIS, INITIAL_STATE, channels_to_dataset
from mosaic_core.contract.variables import CHANNELS

ROOT = Path(__file__).parents[2]


def made(cycle: Cycle, seed: int = 0) -> xr.Dataset:
    """An analysis of smooth numbers that differ between times and seeds."""
    hours = cycle.init_time.astype("datetime64[h]").astype(int) + 1000 * seed
    levels = np.arange(len(CHANNELS), dtype=np.float32)[:, None, None]
    pattern = np.sin(np.deg2rad(LATITUDE))[:, None] + np.cos(np.deg2rad(LONGITUDE))[None]
    planes = (levels + pattern[None] * (1 + hours % 97)).astype(np.float32)
    return channels_to_dataset(planes[None], {"time": [cycle.init_time]}).assign_attrs(
        source="test"
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "analyses.zarr"


@pytest.fixture(scope="session")
def four_times(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("built") / "analyses.zarr"
    for slot in Cycle.parse("2026-11-23T00Z").history(4, 6):
        append_analysis(built, made(slot))
    return built


@pytest.fixture
def filled(archive: Path, four_times: Path) -> Path:
    shutil.copytree(four_times, archive)
    return archive


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_it_opens_with_plain_xarray_without_a_warning(filled: Path, cycle: Cycle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(filled)
    assert opened["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert opened["temperature"].encoding["chunks"] == (1, 13, 121, 240)
    assert opened["temperature"].attrs["standard_name"] == "air_temperature"
    xr.testing.assert_equal(opened.drop_vars("provenance").isel(time=[3]).load(), made(cycle))


def test_it_opens_without_consolidated_metadata_too(filled: Path) -> None:
    xr.testing.assert_identical(
        xr.open_zarr(filled, consolidated=False).load(), xr.open_zarr(filled).load()
    )


def test_it_opens_where_only_xarray_and_zarr_are(filled: Path) -> None:
    """A fresh interpreter that cannot import this project."""
    script = f"import xarray; print(xarray.open_zarr({str(filled)!r}).sizes['time'])"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout == "4\n"


def test_the_metadata_template_is_up_to_date() -> None:
    assert TEMPLATE.read_text() == render(generate()), "run python -m ingest.archive_template"


def test_what_is_stored_comes_back_with_its_provenance(archive: Path, cycle: Cycle) -> None:
    analysis = made(cycle).assign_attrs(source="aws", grib_sha256="ab")
    reference = append_analysis(archive, analysis)
    back = read_analysis(archive, cycle.init_time)
    assert analysis_digest(back) == reference.sha256 == analysis_digest(analysis)
    assert provenance(archive)[cycle.init_time] == {
        "source": "aws", "grib_sha256": "ab", "sha256": reference.sha256,
    }  # fmt: skip
    assert ANALYSIS.faults(back) == []


def test_appending_again_changes_no_byte(filled: Path, cycle: Cycle) -> None:
    before = tree(filled)
    append_analysis(filled, made(cycle))
    assert tree(filled) == before


def test_other_values_for_an_archived_time_are_refused(filled: Path, cycle: Cycle) -> None:
    before = tree(filled)
    with pytest.raises(ArchiveError, match=r"holds other values for this time \(from test"):
        append_analysis(filled, made(cycle, seed=1))
    assert tree(filled) == before


def test_late_times_are_found_in_order(archive: Path, cycle: Cycle) -> None:
    for hours in (0, -12, -6, -18):
        append_analysis(archive, made(cycle.shift(hours)))
    times = archived_times(archive)
    assert (np.diff(times) == np.timedelta64(6, "h")).all()
    opened = xr.open_zarr(archive)  # as any reader does: in the order of arrival
    assert opened["time"].values.tolist() != times.tolist()
    assert opened.sortby("time")["time"].values.tolist() == times.tolist()
    day = opened.sortby("time").sel(time=slice(times[1], times[2]))
    xr.testing.assert_equal(
        day.isel(time=[0]).drop_vars("provenance").load(), made(cycle.shift(-12))
    )
    state = initial_state(cycle, archive, 4, 6)
    for index, slot in enumerate(cycle.history(4, 6)):
        found = state.isel(time=[index]).drop_vars(["provenance", "origin"])
        xr.testing.assert_equal(found, made(slot))


def test_more_times_than_a_coordinate_chunk_holds(
    archive: Path, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = archive_module.template()
    for name in ("time", "provenance"):
        grid = small["consolidated_metadata"]["metadata"][name]["chunk_grid"]
        grid["configuration"]["chunk_shape"] = [2]
    text = json.dumps(small)
    monkeypatch.setattr(archive_module, "template", lambda: json.loads(text))
    slots = cycle.history(5, 6)
    for slot in slots:
        append_analysis(archive, made(slot))
    assert archived_times(archive).tolist() == [s.init_time.astype(int) for s in slots]
    assert len(provenance(archive)) == 5
    assert sorted(p.name for p in (archive / "time" / "c").iterdir()) == ["0", "1", "2"]


def test_a_store_that_is_something_else_is_refused(archive: Path, cycle: Cycle) -> None:
    xr.Dataset({"a": ("x", np.zeros(3))}).to_zarr(archive, zarr_format=3, consolidated=False)
    with pytest.raises(ArchiveError, match="not an archive of analyses"):
        append_analysis(archive, made(cycle))


def test_a_changed_structure_is_refused_before_a_byte_is_written(
    filled: Path, cycle: Cycle
) -> None:
    root = json.loads((filled / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"]["temperature"]["attributes"]["units"] = "Celsius"
    (filled / "zarr.json").write_text(json.dumps(root))
    before = tree(filled)
    with pytest.raises(ArchiveError, match="structure of temperature"):
        append_analysis(filled, made(cycle.shift(6)))
    assert tree(filled) == before


@pytest.mark.parametrize("spoil", ["nan", "two times", "units", "grid"])
def test_what_is_no_analysis_is_refused(spoil: str, archive: Path, cycle: Cycle) -> None:
    analysis = made(cycle)
    if spoil == "nan":
        analysis["temperature"][0, 3, 4, 5] = np.nan
    elif spoil == "two times":
        analysis = xr.concat([analysis, made(cycle.shift(6))], "time")
    elif spoil == "units":
        analysis["temperature"].attrs["units"] = "Celsius"
    else:
        analysis = analysis.isel(latitude=slice(None, None, -1))
    with pytest.raises(DataError):
        append_analysis(archive, analysis)
    assert not archive.exists()


@pytest.mark.parametrize("damage", ["lost", "other"])
def test_damaged_values_are_not_handed_out(damage: str, filled: Path, cycle: Cycle) -> None:
    chunk = filled / "temperature" / "c" / "3" / "0" / "0" / "0"
    if damage == "lost":
        chunk.unlink()
    else:
        shutil.copy(filled / "temperature" / "c" / "2" / "0" / "0" / "0", chunk)
    with pytest.raises(ArchiveError, match=r"do not match their digest"):
        read_analysis(filled, cycle.init_time)


def test_a_full_disk_leaves_the_archive_as_it_was(
    filled: Path, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at each write in turn; readers see the same archive."""
    before = xr.open_zarr(filled).load()
    real, writes = os.fsync, 0
    for allowed in range(0, 14, 2):
        writes = 0

        def full(handle: int, allowed: int = allowed) -> None:
            nonlocal writes
            writes += 1
            if writes > allowed:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ArchiveError, match="no space left"):
            append_analysis(filled, made(cycle.shift(6)))
        monkeypatch.undo()
        xr.testing.assert_identical(xr.open_zarr(filled).load(), before)
        assert list(filled.parent.glob("*.staging")) == []
    append_analysis(filled, made(cycle.shift(6)))
    assert archived_times(filled).size == 5


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_archive import Cycle, append_analysis, made
cycle = Cycle.parse("2026-11-23T00Z")
print("ready", flush=True)
for hours in range(6, 6 * 40, 6):
    append_analysis(Path({archive!r}), made(cycle.shift(hours)))
"""


@pytest.mark.e2e
def test_killed_at_any_moment_readers_see_whole_times_only(filled: Path, cycle: Cycle) -> None:
    """SIGKILL during appends, ten times over; then the same appends go on."""
    script = KILLED.format(tests=str(Path(__file__).parent), archive=str(filled))
    rng = np.random.default_rng(11)
    for _ in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(float(rng.uniform(0.02, 0.35)))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with xr.open_zarr(filled, chunks=None) as seen:
            newest = Cycle.from_datetime64(seen["time"].values[-1])
            assert analysis_digest(seen.isel(time=[-1])) == analysis_digest(made(newest))
            assert not np.isnan(seen["temperature"].isel(time=slice(-2, None))).any()
        for time_ in archived_times(filled)[-2:]:
            read_analysis(filled, time_)
    count = archived_times(filled).size
    append_analysis(filled, made(cycle.shift(6 * (count - 3))))
    xr.testing.assert_identical(
        xr.open_zarr(filled, consolidated=False).load(), xr.open_zarr(filled).load()
    )


def test_a_reader_during_appends_never_sees_half_a_time(filled: Path, cycle: Cycle) -> None:
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not stop.is_set():
            with xr.open_zarr(filled, chunks=None) as seen:
                sizes = {seen[name].sizes["time"] for name in seen.data_vars}
                values = seen["vertical_velocity"].isel(time=-1).values
                if len(sizes) != 1 or np.isnan(values).any():
                    faults.append(str(sizes))

    reader = threading.Thread(target=read)
    reader.start()
    for hours in range(6, 60, 6):
        append_analysis(filled, made(cycle.shift(hours)))
    stop.set()
    reader.join()
    assert faults == []


@pytest.mark.e2e
def test_two_writers_lose_nothing(archive: Path, cycle: Cycle) -> None:
    """Two processes append interleaved times to an archive that is not there yet."""
    script = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_archive import Cycle, append_analysis, made
for hours in range({first}, 72, 12):
    append_analysis(Path({archive!r}), made(Cycle.parse("2026-11-23T00Z").shift(hours)))
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c",
             script.format(tests=str(Path(__file__).parent), first=first, archive=str(archive))],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for first in (0, 6)
    ]  # fmt: skip
    assert [writer.wait() for writer in writers] == [0, 0]
    times = archived_times(archive)
    assert times.size == 12
    for time_ in times:
        cycle = Cycle.from_datetime64(time_)
        xr.testing.assert_equal(read_analysis(archive, time_).drop_vars("provenance"), made(cycle))


def test_a_writer_that_waits_too_long_says_who_holds_the_lock(
    filled: Path, cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_LOCK_WAIT_SECONDS", 0.1)
    with archive_module.writing(filled), pytest.raises(ArchiveError, match=r"analyses\.zarr\.lock"):
        append_analysis(filled, made(cycle.shift(6)))


def test_initial_state_is_the_history_oldest_first(filled: Path, cycle: Cycle) -> None:
    state = initial_state(cycle, filled, 4, 6)
    assert INITIAL_STATE.faults(state) == []
    assert [Cycle.from_datetime64(t) for t in state["time"].values] == list(cycle.history(4, 6))
    assert json.loads(str(state["provenance"].values[0]))["source"] == "test"


def test_a_gap_is_refused_with_every_missing_time_and_the_remedy(
    filled: Path, cycle: Cycle
) -> None:
    with pytest.raises(ArchiveError, match="2 of 4 analyses are missing") as caught:
        initial_state(cycle.shift(12), filled, 4, 6)
    for label in ("2026-11-23T06Z", "2026-11-23T12Z"):
        assert label in caught.value.what
        assert f"mosaic-ops ingest {label}" in caught.value.remedy


def test_no_archive_at_all_is_a_gap(archive: Path, cycle: Cycle) -> None:
    with pytest.raises(ArchiveError, match="2 of 2 analyses are missing"):
        initial_state(cycle, archive, 2, 24)
    assert not archive.exists()


def test_no_archive_to_read_is_named(archive: Path, cycle: Cycle) -> None:
    with pytest.raises(ArchiveError, match="no archive"):
        read_analysis(archive, cycle.init_time)
