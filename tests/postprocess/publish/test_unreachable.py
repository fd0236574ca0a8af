"""A store that does not give one object while all else works: nothing is taken for damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from proxy import Proxy

from flows.cli import publishing
from mosaic_core.contract.errors import PublishError, StoreError
from postprocess.catalog import read_index, update_catalog
from postprocess.objects import s3 as s3_module
from postprocess.objects.root import MUTABLE, ObjectRoot, UnreachableError, open_root
from postprocess.pointer import current_key
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.repair import repair_pointers
from postprocess.retention import retain
from postprocess.retention_rules import Rule
from postprocess.verify import verify_store

OLD, NEW = tiny.CYCLE.shift(-6), tiny.CYCLE
RUN = f"cycles/{NEW.id}/run-1"
Silence = Callable[[str], AbstractContextManager[object]]


@pytest.fixture(params=["folder", "s3 503", "s3 403", "gcs 503", "gcs 403"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ObjectRoot, Silence]:
    """Two published cycles, and a way to have the store not give one of its objects."""
    kind, _, status = request.param.partition(" ")
    if kind == "folder":
        address, silence = str(tmp_path / "root"), unreadable(tmp_path / "root")
    else:
        proxy = request.getfixturevalue(kind + "_proxy")
        monkeypatch.setitem(s3_module._RETRY, "max_retries", 2)
        address, silence = proxy.server.fresh_root(), failing(proxy, status)
    for cycle in (OLD, NEW):
        publish(tiny.stage(tmp_path / cycle.id, cycle), address, cycle=cycle, run_id="run-1")
    return open_root(address), silence


def unreadable(folder: Path) -> Silence:
    """A loop of links in place of the file: the kernel fails, but does not call it absent."""

    @contextmanager
    def silence(key: str) -> Iterator[None]:
        path = folder / key
        kept = path.rename(folder.parent / "kept")
        path.symlink_to(path)
        yield
        kept.rename(path)

    return silence


def failing(proxy: Proxy, status: str) -> Silence:
    @contextmanager
    def silence(key: str) -> Iterator[None]:
        proxy.failing, proxy.failure = key, status
        yield
        proxy.calm()

    return silence


DOCUMENTS = [f"cycles/{NEW.id}/current.json", f"{RUN}/manifest.json"]


@pytest.mark.parametrize("key", DOCUMENTS)
def test_the_catalogue_loses_no_cycle(store: tuple[ObjectRoot, Silence], key: str) -> None:
    root, silence = store
    before = read_index(root)
    with silence(key):
        if key.endswith("current.json"):
            assert update_catalog(root) == before
        with pytest.raises(UnreachableError):
            update_catalog(root, rebuild=True)
    assert read_index(root) == before


@pytest.mark.parametrize("key", ["latest.json", *DOCUMENTS])
def test_no_pointer_moves_back(store: tuple[ObjectRoot, Silence], key: str, tmp_path: Path) -> None:
    """A poorer run of the cycle, and an older cycle, are published meanwhile."""
    root, silence = store
    pointers = [root.read(each) for each in ("latest.json", current_key(NEW))]
    poorer, older = tiny.stage(tmp_path / "p", members=1), NEW.shift(-12)
    tiny.stage(tmp_path / "o", older)
    with silence(key):
        with pytest.raises(UnreachableError):
            publish(poorer, root.address, cycle=NEW, run_id="run-2")
        with pytest.raises(UnreachableError) if key != DOCUMENTS[0] else _nothing():
            publish(tmp_path / "o", root.address, cycle=older, run_id="run-1")
        with pytest.raises(UnreachableError):
            repair_pointers(root)
    assert [root.read(each) for each in ("latest.json", current_key(NEW))] == pointers
    publish(poorer, root.address, cycle=NEW, run_id="run-2")
    latest = read_pointer(root.address)
    assert latest is not None
    assert latest.path == RUN
    assert verify_store(root.address).faults == ()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("key", DOCUMENTS)
def test_whether_a_cycle_is_published_is_not_known(
    store: tuple[ObjectRoot, Silence], key: str
) -> None:
    root, silence = store
    with silence(key), pytest.raises(UnreachableError):
        published_cycle(root.address, NEW)
    assert published_cycle(root.address, NEW) is not None


def test_a_note_that_is_not_given_is_not_written_anew(store: tuple[ObjectRoot, Silence]) -> None:
    root, silence = store
    goes = {"forecast": Rule(days=0), "other": Rule()}
    retain(root, goes)
    note = root.read(key := f"cycles/{OLD.id}/pruned.json")
    with silence(key), pytest.raises(UnreachableError):
        retain(root, goes)
    assert root.read(key) == note


@pytest.mark.parametrize("key", ["latest.json", *DOCUMENTS, f"{RUN}/forecast.zarr/zarr.json"])
def test_an_outage_is_not_reported_as_damage(store: tuple[ObjectRoot, Silence], key: str) -> None:
    root, silence = store
    with silence(key):
        faults = verify_store(root.address).faults
        told = CliRunner().invoke(publishing.verify_store, [root.address])
    assert key in {fault.key for fault in faults}
    assert all(fault.unread and "could not be read" in fault.problem for fault in faults)
    assert isinstance(told.exception, PublishError)
    assert f"{len(faults)} could not be read" in told.exception.what
    assert told.exception.exit_code == 8
    root.write(f"{RUN}/cyclones.geojson", b"{}", cache=MUTABLE)
    with silence(f"{RUN}/forecast.zarr/zarr.json"):
        told = CliRunner().invoke(publishing.verify_store, [root.address])
    assert isinstance(told.exception, StoreError)
    assert "1 of" in told.exception.what
    assert "could not be read" in told.exception.what


def test_latest_that_leads_nowhere_is_set_although_no_other_cycle_is_there(tmp_path: Path) -> None:
    """The first publication meets a pointer that was left by something else."""
    root = open_root(tmp_path / "root")
    root.write("latest.json", b"{}", cache=MUTABLE)
    root.folders = lambda _prefix: []  # type: ignore[method-assign]  # a store whose listing lags
    publish(tiny.stage(tmp_path / "s"), tmp_path / "root", cycle=NEW, run_id="run-1")
    from postprocess.publish import advance_latest

    manifest = published_cycle(tmp_path / "root", NEW)
    assert manifest is not None
    root.write("latest.json", b"{}", cache=MUTABLE)
    advance_latest(root, manifest)
    latest = read_pointer(tmp_path / "root")
    assert latest is not None
    assert latest.path == RUN
