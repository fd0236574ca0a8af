"""A mirror that misbehaves: correct data or a clear refusal within the deadline, never a part."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.fetch import DATA, MANIFEST, fetch_analysis
from ingest.sources import Source, analysis_files
from ingest.synthetic.faults import (
    Cut,
    Drip,
    Fault,
    HalfUploaded,
    IgnoreRange,
    NewTag,
    Refuse,
    Replace,
    Reset,
    Silence,
    Stall,
)
from ingest.synthetic.mirror import Mirror
from ingest.transfer import TransferPolicy
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError

CYCLE = Cycle.parse("2026-11-23T00Z")
POLICY = TransferPolicy(
    connect_seconds=1.0, read_seconds=0.4, total_seconds=4.0, attempts=4,
    backoff_seconds=0.01, backoff_limit_seconds=0.05, concurrency=2,
)  # fmt: skip
INDEX, GRIB = "*.index", "*.grib2"

SURVIVED: dict[str, tuple[Fault, ...]] = {
    "honest": (),
    "503 storm with Retry-After": (Fault("*", Refuse(503, "0"), count=3),),
    "429 on the index": (Fault(INDEX, Refuse(429, "1"), count=1),),
    "401 now and then": (Fault(GRIB, Refuse(401), first=2, count=2),),
    "stalled body": (Fault(GRIB, Stall(100_000), first=2, count=2),),
    "no answer at first": (Fault(INDEX, Silence(), count=2),),
    "reset in the body": (Fault(GRIB, Reset(70_000), first=2, count=3),),
    "cut in good order": (Fault(GRIB, Cut(50_000), first=2, count=5),),
}
REFUSED: dict[str, tuple[tuple[Fault, ...], type[Exception], str]] = {
    "late": ((Fault("*", Refuse(404)),), NotYetAvailable, "not there"),
    "index late": ((Fault(INDEX, Refuse(404)),), NotYetAvailable, "not there"),
    "half uploaded": ((Fault(GRIB, HalfUploaded(0.5)),), NotYetAvailable, "lie outside the file"),
    "half an index": ((Fault(INDEX, HalfUploaded(0.5)),), DataError, "not a row of an ECMWF index"),
    "an error page for an index": (
        (Fault(INDEX, Replace(b"<html>busy</html>")),), DataError, "not a row"),
    "503 for ever": ((Fault("*", Refuse(503)),), SourceError, "gave up after 4 attempts"),
    "Retry-After of an hour": (
        (Fault("*", Refuse(503, "3600")),), SourceError, "after the deadline"),
    "silence for ever": ((Fault("*", Silence()),), SourceError, "gave up|deadline"),
    "drip": ((Fault(GRIB, Drip(20_000), method="GET"),), SourceError, "deadline of 4 s"),
    "ranges ignored": ((Fault(GRIB, IgnoreRange()),), SourceError, "ignores byte ranges"),
    "another version each time": ((Fault(GRIB, NewTag()),), SourceError, "changed between"),
    "403": ((Fault(GRIB, Refuse(403)),), SourceError, "refuses"),
    "416": ((Fault(GRIB, Refuse(416), method="GET"),), SourceError, "refuses"),
}  # fmt: skip


@pytest.fixture
def tree(make_upload: Callable, tmp_path: Path) -> Path:
    upload = make_upload(CYCLE)
    root = tmp_path / "tree"
    location = analysis_files(CYCLE, Source("x", str(root)))
    for address, content in (
        (location.data_url, upload.data()),
        (location.index_url, upload.index()),
    ):
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).write_bytes(content)
    return root


def fetched(tree: Path, folder: Path, faults: tuple[Fault, ...]) -> bytes:
    with Mirror(tree, faults=faults) as mirror:
        fetch_analysis(CYCLE, Source("bad", mirror.url), folder, policy=POLICY)
    return (folder / DATA).read_bytes()


@pytest.mark.parametrize("fault", SURVIVED)
def test_what_passes_is_survived_with_the_right_bytes(
    fault: str, tree: Path, tmp_path: Path
) -> None:
    expected = hashlib.sha256(fetched(tree, tmp_path / "honest", ())).hexdigest()
    content = fetched(tree, tmp_path / "got", SURVIVED[fault])
    assert hashlib.sha256(content).hexdigest() == expected


@pytest.mark.parametrize("fault", REFUSED)
def test_what_stays_is_refused_within_the_deadline(fault: str, tree: Path, tmp_path: Path) -> None:
    faults, kind, told = REFUSED[fault]
    folder, started = tmp_path / "got", time.monotonic()
    with pytest.raises(kind, match=told) as caught:
        fetched(tree, folder, faults)
    assert time.monotonic() - started < POLICY.total_seconds + 3
    assert caught.value.remedy  # type: ignore[attr-defined]
    assert not (folder / MANIFEST).exists()
    assert not (folder / DATA).exists()
    assert not list(folder.glob("*.tmp"))


def test_after_a_drip_the_next_run_goes_on_where_it_stopped(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "got"
    with pytest.raises(SourceError, match="deadline"):
        fetched(tree, folder, (Fault(GRIB, Drip(100_000), method="GET"),))
    held = sum(part.stat().st_size for part in (folder / "parts").glob("*.part"))
    assert held > 100_000
    with Mirror(tree) as mirror:
        fetch_analysis(CYCLE, Source("bad", mirror.url), folder, policy=POLICY)
        sent = sum(request.sent for request in mirror.log if request.path.endswith("grib2"))
    assert sent == sum(f.stat().st_size for f in tree.rglob("*.grib2")) - held


def test_a_full_disk_keeps_what_was_fetched_and_says_so(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "got"
    monkeypatch.setattr("ingest.fetch.assemble", full)
    with pytest.raises(SourceError, match="no space left") as caught:
        fetched(tree, folder, ())
    monkeypatch.undo()
    assert "kept" in caught.value.remedy
    assert not (folder / DATA).exists()
    assert list((folder / "parts").glob("*.part"))
    fetched(tree, folder, ())
