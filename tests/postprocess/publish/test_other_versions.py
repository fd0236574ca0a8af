"""Documents of an older or a newer mosaic-ops: refused by name, never replaced, never pruned."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import tiny

from mosaic_core.contract.artifacts import Pointer
from postprocess.catalog import read_index, update_catalog
from postprocess.manifest import OtherVersionError, digest
from postprocess.objects.root import MUTABLE, ObjectRoot, open_root
from postprocess.pointer import sealed
from postprocess.publish import publish
from postprocess.read import open_published
from postprocess.repair import repair_pointers
from postprocess.retention import retain
from postprocess.retention_rules import Rule
from postprocess.verify import verify_store

OLD = tiny.CYCLE.shift(-6)
CURRENT, MANIFEST = f"cycles/{OLD.id}/current.json", f"cycles/{OLD.id}/run-1/manifest.json"
EVERYTHING_GOES = {"other": Rule(days=0)}
ADVICE = {0: "mosaic-ops of that time", 2: "upgrade mosaic-ops"}
VERSION = {
    0: r"an older mosaic-ops \(schema version 0",
    2: r"a newer mosaic-ops \(schema version 2",
}


def restamp(root: ObjectRoot, key: str, version: int) -> bytes:
    """Give a document another version, in the shape that it had, and something of its own."""
    document = json.loads(root.read(key)) | {"schema_version": version, "of_its_own": True}
    root.write(key, content := json.dumps(document).encode(), cache=MUTABLE)
    return content


@pytest.fixture
def filled(address: str, tmp_path: Path) -> ObjectRoot:
    """Two cycles; of the older one the forecast is announced to go."""
    for cycle in (OLD, tiny.CYCLE):
        staged = tiny.stage(tmp_path / cycle.id, cycle)
        publish(staged, address, cycle=cycle, run_id="run-1")
    root = open_root(address)
    retain(root, {"forecast": Rule(days=0), "other": Rule()})
    return root


def contents(root: ObjectRoot) -> dict[str, bytes]:
    return {info.key: root.read(info.key) for info in root.objects("")}


def everything_that_writes(root: ObjectRoot, folder: Path) -> list[Callable[[], object]]:
    newer = tiny.CYCLE.shift(6)
    return [
        lambda: publish(tiny.stage(folder, newer), root.address, cycle=newer, run_id="run-2"),
        lambda: publish(tiny.stage(folder, OLD), root.address, cycle=OLD, run_id="run-2"),
        lambda: retain(root, EVERYTHING_GOES, grace=-timedelta(days=1)),
        lambda: repair_pointers(root),
        lambda: update_catalog(root, rebuild=True),
    ]


@pytest.mark.parametrize(
    ("key", "version"),
    [("latest.json", 0), ("latest.json", 2), ("index.json", 2), (CURRENT, 0), (MANIFEST, 2)],
)
def test_nothing_of_another_version_is_replaced_or_pruned(
    filled: ObjectRoot, tmp_path: Path, key: str, version: int
) -> None:
    content = restamp(filled, key, version)
    if key == MANIFEST:
        pointer = Pointer.model_validate_json(filled.read(CURRENT))
        moved = sealed(pointer.model_copy(update={"manifest_sha256": digest(content)}))
        filled.write(CURRENT, moved.model_dump_json().encode(), cache=MUTABLE)
    before = contents(filled)
    refusals = []
    for action in everything_that_writes(filled, tmp_path / "more"):
        try:
            action()
        except OtherVersionError as error:
            refusals.append(str(error))
    assert len(refusals) >= 2
    assert all(ADVICE[version] in refusal for refusal in refusals)
    after = contents(filled)
    kept = {name for name in before if name == key or name.startswith(f"cycles/{OLD.id}/")}
    assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    faults = {fault.key: fault.problem for fault in verify_store(filled.address).faults}
    assert "mosaic-ops" in faults[key]


@pytest.mark.parametrize("version", [0, 2])
def test_readers_are_told_which_side_to_upgrade(filled: ObjectRoot, version: int) -> None:
    for key, read in {
        "latest.json": lambda: open_published(filled.address),
        CURRENT: lambda: open_published(filled.address, "ensemble.zarr", cycle=OLD),
        "index.json": lambda: read_index(filled),
        f"cycles/{OLD.id}/pruned.json": lambda: retain(filled, EVERYTHING_GOES),
    }.items():
        good = filled.read(key)
        restamp(filled, key, version)
        with pytest.raises(OtherVersionError, match=VERSION[version]) as caught:
            read()
        assert ADVICE[version] in str(caught.value)
        assert key in str(caught.value)
        filled.write(key, good, cache=MUTABLE)


def test_a_publication_is_refused_before_anything_is_sent(
    filled: ObjectRoot, tmp_path: Path
) -> None:
    restamp(filled, "latest.json", 2)
    before = contents(filled)
    newer = tiny.CYCLE.shift(6)
    with pytest.raises(OtherVersionError):
        publish(tiny.stage(tmp_path / "n", newer), filled.address, cycle=newer, run_id="run-1")
    assert contents(filled) == before
