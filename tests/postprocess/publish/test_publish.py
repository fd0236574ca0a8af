from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import made_up
import pytest
import tiny
import xarray as xr
import zarr

from mosaic_core.contract.errors import InputError, PublishError, StoreError
from postprocess import publish as publishing
from postprocess.manifest import Manifest
from postprocess.objects.root import IMMUTABLE, MUTABLE, open_root
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.store import ForecastWriter

KILLS = int(os.environ.get("MOSAIC_OPS_TEST_KILLS", "2"))


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    return tiny.stage(tmp_path / "staged")


def put(staged: Path, address: str, **options: Any) -> Manifest:
    options = {"cycle": tiny.CYCLE, "run_id": "run-1", "now": lambda: tiny.NOON} | options
    publish(staged, address, **options)
    found = published_cycle(address, options["cycle"])
    assert found is not None
    return found


def test_nothing_is_published_at_first(address: str) -> None:
    assert read_pointer(address) is None
    assert published_cycle(address, tiny.CYCLE) is None


def test_published_and_found_by_the_pointer(address: str, staged: Path) -> None:
    pointer = publish(staged, address, cycle=tiny.CYCLE, run_id="run-1")
    assert read_pointer(address) is not None
    assert pointer.path == "cycles/20261123T00Z/run-1"
    assert (pointer.members, pointer.lead_hours) == (2, 12)
    manifest = published_cycle(address, tiny.CYCLE)
    assert manifest is not None
    assert manifest.stores == ["cyclones.geojson", "ensemble.zarr", "forecast.zarr"]
    root = open_root(address)
    sizes = {info.key: info.size for info in root.objects(pointer.path)}
    del sizes[f"{pointer.path}/manifest.json"]
    assert sizes == {f"{pointer.path}/{r.key}": r.size for r in manifest.objects}
    for record in manifest.objects:
        assert root.read(f"{pointer.path}/{record.key}") == (staged / record.key).read_bytes()


def test_a_second_publication_changes_nothing(address: str, staged: Path) -> None:
    put(staged, address)
    before = {
        info.key: open_root(address).read(info.key) for info in open_root(address).objects("")
    }
    put(staged, address, now=lambda: tiny.NOON + timedelta(hours=1))
    after = {info.key: open_root(address).read(info.key) for info in open_root(address).objects("")}
    assert {k: v for k, v in before.items() if "cycles/" in k or k == "latest.json"} == {
        k: v for k, v in after.items() if "cycles/" in k or k == "latest.json"
    }


def test_an_older_cycle_is_published_but_latest_stays(address: str, tmp_path: Path) -> None:
    older = tiny.CYCLE.shift(-6)
    put(tiny.stage(tmp_path / "new"), address)
    put(tiny.stage(tmp_path / "old", older), address, cycle=older)
    latest = read_pointer(address)
    assert latest is not None
    assert latest.cycle == tiny.CYCLE.label
    newer = tiny.CYCLE.shift(6)
    put(tiny.stage(tmp_path / "newer", newer), address, cycle=newer)
    latest = read_pointer(address)
    assert latest is not None
    assert latest.cycle == newer.label


@pytest.mark.parametrize(
    ("members", "leads", "hours_later", "wins"),
    [(1, 3, 1, False), (2, 2, 1, False), (3, 3, -1, True), (2, 3, 1, True), (2, 3, -1, False)],
)
def test_a_poorer_run_never_replaces_a_better_one(
    tmp_path: Path, members: int, leads: int, hours_later: int, wins: bool
) -> None:
    address = str(tmp_path / "root")
    put(tiny.stage(tmp_path / "a"), address)
    other = tiny.stage(tmp_path / "b", run_id="run-2", members=members, leads=leads)
    later = tiny.NOON + timedelta(hours=hours_later)
    assert put(other, address, run_id="run-2", now=lambda: later).run_id == (
        "run-2" if wins else "run-1"
    )
    latest = read_pointer(address)
    assert latest is not None
    assert latest.run_id == ("run-2" if wins else "run-1")


def test_a_publisher_with_a_wrong_clock_is_told_the_time_by_the_store(
    address: str, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stamps are right, and it gains no rank over the runs that come after it."""

    class Years(datetime):
        """A clock that is three years ahead."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1096)

    before = datetime.now(UTC) - timedelta(minutes=1)
    with monkeypatch.context() as skewed:
        skewed.setattr(publishing, "datetime", Years)
        assert put(staged, address, now=None).run_id == "run-1"
    manifest = published_cycle(address, tiny.CYCLE)
    assert manifest is not None
    assert before < manifest.created_at < datetime.now(UTC) + timedelta(minutes=1)
    later = tiny.stage(tmp_path / "later", run_id="run-2")
    time.sleep(1.1)  # S3 tells whole seconds
    assert put(later, address, run_id="run-2", now=None).run_id == "run-2"


@pytest.mark.parametrize(
    "edited",
    [
        b"", b"{}", b"[1]", b"not json", b'{"schema_version": 1, "cycle": "2099-01-01T00Z"}',
        "cycle=2027-01-01T00Z", "run_id=other", "manifest_sha256=" + "0" * 64, "members=-1",
    ],
)  # fmt: skip
def test_a_pointer_edited_by_hand_is_told_and_repaired(tmp_path: Path, edited: bytes | str) -> None:
    address, newer = str(tmp_path / "root"), tiny.CYCLE.shift(6)
    put(tiny.stage(tmp_path / "a"), address)
    put(tiny.stage(tmp_path / "b", newer), address, cycle=newer)
    latest = tmp_path / "root" / "latest.json"
    good = latest.read_bytes()
    if isinstance(edited, str):
        name, _, value = edited.partition("=")
        edited = json.dumps(json.loads(good) | {name: value}).encode()
    latest.write_bytes(edited)
    older = tiny.CYCLE.shift(-6)
    put(tiny.stage(tmp_path / "c", older), address, cycle=older)
    repaired = read_pointer(address)
    assert repaired is not None
    assert repaired.cycle == newer.label
    assert repaired.manifest_sha256 == json.loads(good)["manifest_sha256"]


def test_an_invalid_pointer_is_an_error_for_its_reader(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_text('{"cycle": "soon"}')
    with pytest.raises(PublishError, match="not a valid Pointer") as caught:
        read_pointer(tmp_path)
    assert "catalog ROOT --rebuild" in str(caught.value)


def test_a_newer_schema_version_is_left_alone(tmp_path: Path, staged: Path) -> None:
    address = tmp_path / "root"
    put(staged, str(address))
    newer = b'{"schema_version": 2, "shape": "unknown"}'
    (address / "latest.json").write_bytes(newer)
    with pytest.raises(PublishError, match="newer mosaic-ops"):
        put(staged, str(address))
    assert (address / "latest.json").read_bytes() == newer


def test_a_damaged_manifest_counts_as_not_published(tmp_path: Path, staged: Path) -> None:
    address = tmp_path / "root"
    put(staged, str(address))
    manifest = address / "cycles/20261123T00Z/run-1/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"members": 2', b'"members": 9'))
    assert published_cycle(address, tiny.CYCLE) is None
    assert put(staged, str(address), now=lambda: tiny.NOON + timedelta(hours=2)).members == 2


@pytest.mark.parametrize("lost", [False, True])
def test_objects_that_arrived_damaged_or_not_at_all_stop_the_publication(
    address: str, staged: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The store's own listing shows it (absence, size), or the read-back does (content)."""
    send = publishing._send

    def send_then_damage(root: Any, path: str, files: Any, claim: Any) -> None:
        send(root, path, files, claim)
        if lost:
            root.delete([f"{path}/forecast.zarr/2m_temperature/c.0.1.0.0.0"])
            return
        key = f"{path}/forecast.zarr/zarr.json"
        root.write(key, root.read(key)[:-1] + b"!", cache=IMMUTABLE)

    monkeypatch.setattr(publishing, "_send", send_then_damage)
    told = r"c\.0\.1\.0\.0\.0: missing" if lost else "differ from what was|reads back differently"
    with pytest.raises(PublishError, match=told):
        put(staged, address)
    assert read_pointer(address) is None
    monkeypatch.undo()
    put(staged, address)
    assert read_pointer(address) is not None


def test_objects_of_another_run_under_the_same_id_stop_it(address: str, staged: Path) -> None:
    open_root(address).write("cycles/20261123T00Z/run-1/stray", b"x", cache=MUTABLE)
    with pytest.raises(PublishError, match="stray: not sent by this run"):
        put(staged, address)


def test_what_is_not_a_whole_forecast_is_refused(tmp_path: Path) -> None:
    address = str(tmp_path / "root")
    with pytest.raises(StoreError, match="no whole forecast"):
        put(tmp_path, address)
    staged = tiny.stage(tmp_path / "s")
    with pytest.raises(StoreError, match="is of 2026-11-23T00Z, not of 2026-11-23T06Z"):
        put(staged, address, cycle=tiny.CYCLE.shift(6))
    with pytest.raises(InputError, match="cannot name a folder"):
        put(staged, address, run_id="../up")
    (staged / ".points.zarr.partial").mkdir()
    (staged / ".points.zarr.partial" / "c").write_text("half")
    with pytest.raises(StoreError, match="unfinished work"):
        put(staged, address)
    assert not (tmp_path / "root").exists()


def test_a_forecast_that_lacks_an_object_is_refused(tmp_path: Path, staged: Path) -> None:
    """A reader of Zarr takes a missing object for missing values, and no manifest would tell."""
    next((staged / "forecast.zarr/2m_temperature").glob("c*")).unlink()
    with pytest.raises(StoreError, match="cannot read a shard"):
        put(staged, f"{tmp_path}/bucket")
    assert not (tmp_path / "bucket").exists()


def test_killed_anywhere_no_reader_sees_half_and_the_next_attempt_finishes(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    spec = made_up.spec(members=1, leads=2)
    with ForecastWriter(staged / "forecast.zarr", spec) as writer:
        for step in made_up.steps(spec):
            writer.write(step)
    address = tmp_path / "root"
    command = (sys.executable, tiny.__file__, str(staged), str(address), "2026-11-23T00Z", "r")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    chance = random.Random(5)
    for _ in range(KILLS):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not (address / "cycles").exists():
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        pointer = read_pointer(address)
        if pointer is not None:
            with xr.open_zarr(address / pointer.path / "forecast.zarr") as dataset:
                assert dataset["temperature"].isel(level=3).notnull().all()
    subprocess.run(command, env=environment, check=True)
    pointer = read_pointer(address)
    assert pointer is not None
    group = zarr.open_group(address / pointer.path / "forecast.zarr", mode="r")
    assert group["temperature"].nchunks_initialized == 26  # type: ignore[union-attr]


def test_a_full_disk_is_a_clear_error_and_the_next_attempt_finishes(
    staged: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: the manifest does not fit."""
    address, older = tmp_path / "root", tiny.CYCLE.shift(-6)
    put(tiny.stage(tmp_path / "old", older), str(address), cycle=older)
    before = (address / "latest.json").read_bytes()
    command = (sys.executable, tiny.__file__, str(staged), str(address), tiny.CYCLE.label, "run-1")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    limited = subprocess.run(
        command, capture_output=True, text=True, env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )  # fmt: skip
    assert limited.returncode != 0
    assert "UnreachableError" in limited.stderr
    assert "make room" in limited.stderr
    assert (address / "latest.json").read_bytes() == before
    subprocess.run(command, env=environment, check=True)
    pointer = read_pointer(address)
    assert pointer is not None
    assert pointer.cycle == tiny.CYCLE.label
    assert {path.suffix for path in (address / ".aside").iterdir()} == {".lock"}
