from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.catalog import read_index
from postprocess.objects.root import MUTABLE, ObjectRoot, open_root
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.retention import DEFAULT_RULES, Rule, parse_rules, retain, store_time
from postprocess.verify import verify_store

OLD = Cycle.parse("2020-01-01T00Z")
NOW = timedelta(0)
LET_GO = {"forecast": Rule(days=10), "other": Rule()}


def fill(address: str, tmp_path: Path, count: int = 3) -> list[Cycle]:
    """`count` cycles long ago, oldest first."""
    cycles = [OLD.shift(6 * number) for number in range(count)]
    for cycle in cycles:
        publish(tiny.stage(tmp_path / cycle.id, cycle), address, cycle=cycle, run_id="run-1")
    return cycles


def keys(root: ObjectRoot, prefix: str = "") -> list[str]:
    return [info.key for info in root.objects(prefix)]


def test_announced_first_removed_after_the_grace_and_never_the_latest(
    address: str, tmp_path: Path
) -> None:
    *old, latest = fill(address, tmp_path)
    root = open_root(address)
    before = keys(root, "cycles")
    removals = retain(root, LET_GO, grace=timedelta(hours=1))
    assert [removal.stage for removal in removals] == ["announce"] * 2
    assert {removal.what for removal in removals} == {
        f"cycles/{cycle.id}/run-1/forecast.zarr" for cycle in old
    }
    assert set(before) < set(keys(root, "cycles"))
    for entry in read_index(root).cycles:
        (forecast,) = [store for store in entry.stores if store.name == "forecast.zarr"]
        assert forecast.available == (entry.cycle == latest.label)
    assert retain(root, LET_GO, grace=timedelta(hours=1)) == []

    removals = retain(root, LET_GO, grace=NOW)
    assert [removal.stage for removal in removals] == ["delete"] * 2
    for cycle in old:
        assert keys(root, f"cycles/{cycle.id}/run-1/forecast.zarr") == []
        assert f"cycles/{cycle.id}/run-1/ensemble.zarr/zarr.json" in keys(root)
    assert f"cycles/{latest.id}/run-1/forecast.zarr/zarr.json" in keys(root)
    assert verify_store(address).faults == ()
    assert retain(root, LET_GO, grace=NOW) == []


def test_a_cycle_of_which_nothing_is_kept_disappears(address: str, tmp_path: Path) -> None:
    *old, latest = fill(address, tmp_path)
    root = open_root(address)
    everything = {"other": Rule(days=1)}
    retain(root, everything, grace=NOW)
    retain(root, everything, grace=NOW)
    assert [entry.cycle for entry in read_index(root).cycles] == [latest.label]
    assert all(key.startswith(f"cycles/{latest.id}/") for key in keys(root, "cycles"))
    assert keys(root, "claims") == []
    assert published_cycle(address, old[0]) is None
    pointer = read_pointer(address)
    assert pointer is not None
    assert pointer.cycle == latest.label
    assert verify_store(address).faults == ()


def test_a_dry_run_says_what_and_how_much_and_changes_nothing(address: str, tmp_path: Path) -> None:
    fill(address, tmp_path)
    root = open_root(address)
    before = {info.key: info.modified for info in root.objects("")}
    removals = retain(root, LET_GO, grace=NOW, dry_run=True)
    assert len(removals) == 2
    assert all(removal.bytes > 1000 and removal.objects > 5 for removal in removals)
    assert {info.key: info.modified for info in root.objects("")} == before


def test_counts_and_ages_both_keep(tmp_path: Path) -> None:
    address = str(tmp_path / "root")
    cycles = fill(address, tmp_path, 5)
    rules = {"forecast": Rule(days=1, count=3), "other": Rule()}
    gone = {removal.what.split("/")[1] for removal in retain(open_root(address), rules)}
    assert gone == {cycle.id for cycle in cycles[:2]}


def test_a_superseded_run_goes_after_the_grace(address: str, tmp_path: Path) -> None:
    publish(tiny.stage(tmp_path / "a", OLD), address, cycle=OLD, run_id="run-1")
    better = tiny.stage(tmp_path / "b", OLD, "run-2", members=3)
    publish(better, address, cycle=OLD, run_id="run-2")
    root = open_root(address)
    assert retain(root, DEFAULT_RULES) == []
    (removal,) = retain(root, DEFAULT_RULES, grace=NOW)
    assert removal.what == f"cycles/{OLD.id}/run-1"
    assert keys(root, f"cycles/{OLD.id}/run-1") == []
    assert verify_store(address).faults == ()


def test_what_a_backfill_is_writing_stays(tmp_path: Path) -> None:
    address = str(tmp_path / "root")
    fill(address, tmp_path)
    root = open_root(address)
    half = f"cycles/{OLD.shift(-6).id}/run-9"
    root.write(f"{half}/forecast.zarr/c.0", b"half", cache=MUTABLE)
    root.write(f"claims/{OLD.shift(-6).id}.run-9.json", b"{}", cache=MUTABLE)
    root.write(f"claims/{OLD.id}.run-2.json", b"{}", cache=MUTABLE)
    removals = retain(root, LET_GO, grace=timedelta(hours=1))
    assert {removal.what.split("/")[1] for removal in removals} == {OLD.shift(6).id}
    root.delete([f"claims/{OLD.shift(-6).id}.run-9.json"])
    assert [r for r in retain(root, LET_GO, grace=timedelta(hours=1)) if half in r.what] == []
    assert [r for r in retain(root, LET_GO, grace=NOW) if half in r.what] != []
    assert keys(root, half) == []


def test_killed_between_the_steps_a_late_reader_gets_an_error_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first deletion takes root metadata only: no store is ever open with gaps."""
    address = tmp_path / "root"
    _, first, _ = fill(str(address), tmp_path)
    root = open_root(address)
    retain(root, LET_GO, grace=NOW)
    delete, done = root.delete, []

    def delete_once(some: list[str]) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(some)
        delete(some)

    monkeypatch.setattr(root, "delete", delete_once)
    monkeypatch.setattr("postprocess.retention.store_time", lambda _: datetime.now(UTC))
    with pytest.raises(KeyboardInterrupt):
        retain(root, LET_GO, grace=NOW)
    store = address / f"cycles/{first.id}/run-1/forecast.zarr"
    assert list((store / "2m_temperature").glob("c.*"))
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(store)
    monkeypatch.undo()
    retain(root, LET_GO, grace=NOW)
    assert not store.exists()


def test_files_of_killed_writers_are_swept(tmp_path: Path) -> None:
    root = open_root(tmp_path)
    aside = tmp_path / ".aside" / "0123456789abcdef"
    aside.parent.mkdir()
    aside.write_bytes(b"half")
    retain(root, DEFAULT_RULES)
    assert aside.exists()
    retain(root, DEFAULT_RULES, grace=-timedelta(seconds=5))
    assert not aside.exists()


def test_time_is_the_stores_own(address: str) -> None:
    assert abs(store_time(open_root(address)) - datetime.now(UTC)) < timedelta(minutes=1)
    assert keys(open_root(address)) == []


def test_rules_are_read_and_bad_ones_refused() -> None:
    rules = parse_rules(["forecast=10d", "points=40n", "ensemble=30d,100n"])
    assert rules["forecast"] == Rule(days=10)
    assert rules["points"] == Rule(count=40)
    assert rules["ensemble"] == Rule(days=30, count=100)
    assert rules["other"] == DEFAULT_RULES["other"]
    assert parse_rules(["forecast="])["forecast"] == Rule()
    for bad in ("forecast", "forecast=ten", "forecast=10", "a=b=c", "x=-1d"):
        with pytest.raises(InputError, match="cannot read the retention rule"):
            parse_rules([bad])
