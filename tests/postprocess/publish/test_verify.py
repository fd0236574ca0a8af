from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from mosaic_core.contract.errors import InputError
from postprocess.objects.root import MUTABLE, open_root
from postprocess.publish import publish
from postprocess.verify import verify_store

RUN = "cycles/20261123T00Z/run-1"


@pytest.fixture
def published(address: str, tmp_path: Path) -> str:
    publish(tiny.stage(tmp_path / "staged"), address, cycle=tiny.CYCLE, run_id="run-1")
    return address


def places(published: str) -> list[str]:
    return [published, f"{published}/{RUN}", f"{published}/{RUN}/forecast.zarr"]


def test_an_untouched_store_has_no_fault(published: str) -> None:
    for place in places(published):
        found = verify_store(place)
        assert found.faults == ()
        assert found.objects > 10
        assert found.bytes > 1000


def test_a_flipped_bit_is_named_from_every_address(published: str) -> None:
    root = open_root(published)
    key = f"{RUN}/forecast.zarr/2m_temperature/c.0.1.0.0.0"
    content = bytearray(root.read(key))
    content[len(content) // 2] ^= 4
    root.write(key, bytes(content), cache=MUTABLE)
    for place in places(published):
        (fault,) = verify_store(place).faults
        assert fault.key.endswith(key) or key.endswith(fault.key)
        assert "SHA-256" in fault.problem


def test_every_kind_of_damage_is_named(published: str) -> None:
    root = open_root(published)
    store = f"{RUN}/ensemble.zarr"
    root.delete([f"{store}/latitude/c.0"])
    root.write(f"{store}/zarr.json", b"{}", cache=MUTABLE)
    root.write(f"{store}/extra", b"?", cache=MUTABLE)
    faults = {fault.key: fault.problem for fault in verify_store(published).faults}
    assert faults.pop(f"{store}/latitude/c.0") == "missing"
    assert "bytes" in faults.pop(f"{store}/zarr.json")
    assert faults.pop(f"{store}/extra") == "is not in the manifest"
    assert faults == {}
    assert verify_store(f"{published}/{RUN}/forecast.zarr").faults == ()


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("latest.json", "valid"),
        ("cycles/20261123T00Z/current.json", "valid"),
        (f"{RUN}/manifest.json", "valid"),
        ("index.json", "valid"),
    ],
)
def test_damaged_documents_are_named(published: str, key: str, problem: str) -> None:
    root = open_root(published)
    root.write(key, root.read(key)[:-9], cache=MUTABLE)
    faults = {fault.key: fault.problem for fault in verify_store(published).faults}
    assert problem in faults[key]


def test_a_lost_manifest_is_named(published: str) -> None:
    open_root(published).delete([f"{RUN}/manifest.json"])
    faults = {fault.key: fault.problem for fault in verify_store(published).faults}
    assert faults[f"{RUN}/manifest.json"] == "missing"


def test_where_nothing_is_published_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        verify_store(str(tmp_path / "nothing"))


def test_latest_that_is_missing_or_lags_is_named(published: str, tmp_path: Path) -> None:
    root, newer = open_root(published), tiny.CYCLE.shift(6)
    before = root.read("latest.json")
    publish(tiny.stage(tmp_path / "new", newer), published, cycle=newer, run_id="run-1")
    assert verify_store(published).faults == ()
    root.write("latest.json", before, cache=MUTABLE)
    (fault,) = verify_store(published).faults
    assert fault.key == "latest.json"
    assert f"the newest cycle's run is cycles/{newer.id}/run-1" in fault.problem
    root.delete(["latest.json"])
    (fault,) = verify_store(published).faults
    assert (fault.key, fault.problem[:8]) == ("latest.json", "missing,")
    root.write(f"cycles/{newer.id}/run-1/manifest.json", b"{}", cache=MUTABLE)
    root.write("latest.json", before, cache=MUTABLE)
    assert "latest.json" not in {fault.key for fault in verify_store(published).faults}
