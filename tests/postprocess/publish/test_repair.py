"""Pointers and notes that somebody edited: told, repaired, and no run lost over them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import tiny

from postprocess.catalog import read_index, update_catalog
from postprocess.objects.root import MUTABLE, ObjectRoot, open_root
from postprocess.pointer import current_manifest
from postprocess.publish import publish, read_pointer
from postprocess.repair import repair_pointers
from postprocess.retention import retain
from postprocess.retention_rules import Rule
from postprocess.verify import verify_store

OLD = tiny.CYCLE.shift(-6)
CURRENT = f"cycles/{OLD.id}/current.json"
NOTE = f"cycles/{OLD.id}/pruned.json"
AT_ONCE = -timedelta(seconds=5)


@pytest.fixture
def root(address: str, tmp_path: Path) -> ObjectRoot:
    """Two cycles, the older one with a poorer run and one that nobody finished beside its best."""
    for number, members in ((1, 2), (2, 3)):
        staged = tiny.stage(tmp_path / f"run-{number}", OLD, f"run-{number}", members=members)
        publish(staged, address, cycle=OLD, run_id=f"run-{number}")
    publish(tiny.stage(tmp_path / "new"), address, cycle=tiny.CYCLE, run_id="run-1")
    root = open_root(address)
    half = f"cycles/{OLD.id}/run-3"
    root.write(f"{half}/forecast.zarr/c.0", b"half", cache=MUTABLE)
    root.write(f"{half}/manifest.json", root.read(f"cycles/{OLD.id}/run-2/manifest.json"),
               cache=MUTABLE)  # fmt: skip
    return root


def edit(root: ObjectRoot, key: str, how: bytes | dict[str, object]) -> None:
    if isinstance(how, dict):
        how = json.dumps(json.loads(root.read(key)) | how).encode()
    root.write(key, how, cache=MUTABLE)


@pytest.mark.parametrize("key", ["latest.json", CURRENT])
@pytest.mark.parametrize("how", [b"not json", {"run_id": "run-9"}], ids=str)
def test_an_edited_pointer_is_named_and_repaired_and_costs_no_run(
    root: ObjectRoot, key: str, how: bytes | dict[str, object]
) -> None:
    good = json.loads(root.read(key))
    edit(root, key, how)
    assert key in {fault.key for fault in verify_store(root.address).faults}
    if key == CURRENT:
        assert retain(root, {"other": Rule()}, grace=AT_ONCE) == []
    repair_pointers(root)
    update_catalog(root, rebuild=True)
    assert {**json.loads(root.read(key)), "token": ""} == {**good, "token": ""}
    assert verify_store(root.address).faults == ()
    assert [entry.run_id for entry in read_index(root).cycles] == ["run-1", "run-2"]


def test_publishing_the_next_cycle_repairs_latest_by_itself(
    root: ObjectRoot, tmp_path: Path
) -> None:
    edit(root, "latest.json", {"cycle": "2099-01-01T00Z"})
    older = tiny.CYCLE.shift(-12)
    publish(tiny.stage(tmp_path / "older", older), root.address, cycle=older, run_id="run-1")
    latest = read_pointer(root.address)
    assert latest is not None
    assert latest.cycle == tiny.CYCLE.label


def test_a_cycle_is_not_pointed_at_a_run_that_is_damaged(root: ObjectRoot) -> None:
    edit(root, CURRENT, b"")
    root.delete([f"cycles/{OLD.id}/run-2/forecast.zarr/zarr.json"])
    repair_pointers(root)
    found = current_manifest(root, OLD)
    assert found is not None
    assert found.run_id == "run-1"


@pytest.mark.parametrize("how", [b"{}", {"announced": {}}], ids=str)
def test_an_edited_note_of_retention_is_named_and_written_again(
    root: ObjectRoot, how: bytes | dict[str, object]
) -> None:
    goes = {"forecast": Rule(days=0), "other": Rule()}
    for _ in range(2):
        retain(root, goes, grace=AT_ONCE)
    assert verify_store(root.address).faults == ()
    edit(root, NOTE, how)
    assert NOTE in {fault.key for fault in verify_store(root.address).faults}
    retain(root, goes, grace=AT_ONCE)
    assert verify_store(root.address).faults == ()
