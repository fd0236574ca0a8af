from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess import retention
from postprocess.catalog import read_index
from postprocess.objects.root import MUTABLE, ObjectRoot, UnreachableError, open_root
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.retention import retain, store_time
from postprocess.retention_rules import DEFAULT_RULES, KINDS, Rule, parse_rules
from postprocess.structure import PRODUCTS, checked_in
from postprocess.verify import verify_store

OLD = Cycle.parse("2020-01-01T00Z")
NOW = timedelta(0)
LET_GO = {"forecast": Rule(days=10), "other": Rule()}


def fill(address: str, tmp_path: Path, count: int = 3) -> list[Cycle]:
    """`count` cycles published long ago, oldest first."""
    cycles = [OLD.shift(6 * number) for number in range(count)]
    for cycle in cycles:
        then = cycle.datetime + timedelta(hours=8)
        staged = tiny.stage(tmp_path / cycle.id, cycle)
        publish(staged, address, cycle=cycle, run_id="run-1", now=lambda then=then: then)
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


def test_a_publisher_at_work_is_safe_however_short_the_grace(address: str) -> None:
    root, half = open_root(address), f"cycles/{OLD.id}/run-9"
    root.write(f"claims/{OLD.id}.run-9.json", b"{}", cache=MUTABLE)
    root.write(f"{half}/forecast.zarr/c.0", b"half", cache=MUTABLE)
    assert retain(root, LET_GO, grace=NOW) == []
    assert keys(root) == [f"claims/{OLD.id}.run-9.json", f"{half}/forecast.zarr/c.0"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_publisher_that_comes_while_retention_is_at_work_loses_nothing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    """A run that nobody claimed goes on between the plan and the first deletion."""
    root = open_root(address)
    staged = tiny.stage(tmp_path / "s", OLD, "run-9")
    key = f"cycles/{OLD.id}/run-9/cyclones.geojson"
    root.upload(key, staged / "cyclones.geojson", cache=MUTABLE)
    carry_out = retention._carry_out

    def publisher_comes(*arguments: object) -> object:
        root.write(f"claims/{OLD.id}.run-9.json", b"{}", cache=MUTABLE)
        if finished:
            publish(staged, address, cycle=OLD, run_id="run-9")
        return carry_out(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_carry_out", publisher_comes)
    assert retain(root, LET_GO, grace=NOW) == []
    assert key in keys(root)
    assert not finished or verify_store(address).faults == ()


def test_a_cycle_that_is_published_anew_while_retention_is_at_work_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "root")
    old = fill(address, tmp_path, 2)[0]
    root, everything = open_root(address), {"other": Rule(days=1)}
    retain(root, everything, grace=NOW)
    carry_out = retention._carry_out

    def publisher_comes(*arguments: object) -> object:
        better = tiny.stage(tmp_path / "better", old, "run-2", members=3)
        publish(better, address, cycle=old, run_id="run-2")
        return carry_out(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "_carry_out", publisher_comes)
    assert retain(root, everything, grace=NOW) == []
    manifest = published_cycle(address, old)
    assert manifest is not None
    assert manifest.run_id == "run-2"


def test_what_the_catalogue_never_announced_stays(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note was written, the catalogue could not be: the grace begins when readers can know."""
    old = fill(address, tmp_path, 2)[0]
    root = open_root(address)

    def fails(*_: object, **__: object) -> None:
        raise UnreachableError("the store failed: 503")

    with monkeypatch.context() as outage:
        outage.setattr(retention, "update_catalog", fails)
        with pytest.raises(UnreachableError):
            retain(root, LET_GO, grace=NOW)
    (removal,) = retain(root, LET_GO, grace=NOW)
    assert removal.stage == "announce"
    assert f"cycles/{old.id}/run-1/forecast.zarr/zarr.json" in keys(root)
    (forecast,) = (s for s in read_index(root).cycles[1].stores if s.name == "forecast.zarr")
    assert not forecast.available
    (removal,) = retain(root, LET_GO, grace=NOW)
    assert removal.stage == "delete"


def test_the_run_that_latest_names_stays_although_its_cycle_has_a_better_one(
    address: str, tmp_path: Path
) -> None:
    """Its publisher was killed before it moved latest.json: readers still follow that."""
    fill(address, tmp_path, 1)
    root = open_root(address)
    latest = root.read("latest.json")
    better = tiny.stage(tmp_path / "b", OLD, "run-2", members=3)
    publish(better, address, cycle=OLD, run_id="run-2")
    root.write("latest.json", latest, cache=MUTABLE)
    assert retain(root, DEFAULT_RULES, grace=NOW) == []
    assert f"cycles/{OLD.id}/run-1/forecast.zarr/zarr.json" in keys(root)


def test_without_latest_no_store_goes_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(str(tmp_path / "root"), tmp_path, 2)
    (tmp_path / "root" / "latest.json").unlink()
    assert retain(open_root(tmp_path / "root"), LET_GO, grace=NOW) == []
    assert "latest.json is missing" in caplog.text


def test_the_age_of_a_backfill_counts_from_its_publication(tmp_path: Path) -> None:
    address = str(tmp_path / "root")
    for cycle in (OLD, OLD.shift(6)):
        publish(tiny.stage(tmp_path / cycle.id, cycle), address, cycle=cycle, run_id="run-1")
    assert retain(open_root(address), DEFAULT_RULES) == []
    soon = {"forecast": Rule(days=0), "other": Rule()}
    (removal,) = retain(open_root(address), soon)
    assert removal.what == f"cycles/{OLD.id}/run-1/forecast.zarr"


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


def test_several_may_ask_for_the_time_at_once(address: str) -> None:
    root = open_root(address)
    with ThreadPoolExecutor(6) as pool:
        times = list(pool.map(lambda _: store_time(root), range(48)))
    assert max(times) - min(times) < timedelta(minutes=1)
    assert keys(root) == []


def test_several_may_sweep_at_once(tmp_path: Path) -> None:
    (tmp_path / ".aside").mkdir()
    for number in range(2000):
        (tmp_path / ".aside" / str(number)).touch()
    later = datetime.now(UTC) + timedelta(minutes=1)
    with ThreadPoolExecutor(3) as pool:
        swept = list(pool.map(lambda _: open_root(tmp_path).sweep(later), range(3)))
    assert sum(swept) == 2000


def test_every_product_is_of_a_kind_that_rules_know() -> None:
    assert set(json.loads(checked_in(PRODUCTS))) <= set(KINDS)


def test_rules_are_read_and_bad_ones_refused() -> None:
    rules = parse_rules(["forecast=10d", "points=40n", "ensemble=30d,100n"])
    assert rules["forecast"] == Rule(days=10)
    assert rules["points"] == Rule(count=40)
    assert rules["ensemble"] == Rule(days=30, count=100)
    assert rules["other"] == DEFAULT_RULES["other"]
    assert parse_rules(["forecast="])["forecast"] == Rule()
    assert parse_rules(["tracks=5n"])["tracks"] == Rule(count=5)
    with pytest.raises(InputError, match="no store is of the kind 'forcast'") as caught:
        parse_rules(["forcast=30d"])
    assert all(kind in caught.value.remedy for kind in KINDS)
    for bad in ("forecast", "forecast=ten", "forecast=10", "a=b=c", "x=-1d"):
        with pytest.raises(InputError, match="cannot read the retention rule"):
            parse_rules([bad])
