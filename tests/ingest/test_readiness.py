from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.readiness import first_seen, is_ready, wait_until_ready
from ingest.sources import ECMWF_MIRRORS, Source, analysis_files
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import NotYetAvailable, SourceError


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
def upload(make_upload, cycle, mirror):
    made = make_upload(cycle)
    mirror.serve(made)
    return made


def elsewhere(mirror) -> Source:
    return Source("empty", f"{mirror.root}/elsewhere")


def test_ready_means_the_whole_inventory(cycle, mirror, make_upload, policy) -> None:
    assert not is_ready(cycle, mirror.source, policy)
    upload = make_upload(cycle)
    location = analysis_files(cycle, mirror.source)
    mirror.put(location.data_url, upload.data())
    assert not is_ready(cycle, mirror.source, policy)
    mirror.put(location.index_url, b"\n".join(upload.index().splitlines()[:40]))
    assert not is_ready(cycle, mirror.source, policy)
    mirror.serve(upload)
    assert is_ready(cycle, mirror.source, policy)


def test_the_first_complete_source_is_taken(cycle, mirror, upload, policy) -> None:
    sources = [elsewhere(mirror), mirror.source]
    found = wait_until_ready(cycle, sources, deadline=soon(20), poll_seconds=0.1, policy=policy)
    assert found.name == "test"


def test_a_hanging_mirror_does_not_hold_up_the_others(
    cycle, mirror, answers, upload, policy
) -> None:
    mirror.fault("/slow/20261123/00z/ifs/0p25/oper/20261123000000-0h-oper-fc.grib2",
                 *[answers.stall(3.0)] * 9)  # fmt: skip
    slow = Source("slow", f"{mirror.root}/slow")
    started = datetime.now(UTC)
    found = wait_until_ready(cycle, [slow, mirror.source], deadline=soon(20), policy=policy)
    assert found.name == "test"
    assert datetime.now(UTC) - started < timedelta(seconds=3)


def test_it_waits_until_the_cycle_appears(cycle, mirror, make_upload, policy) -> None:
    appear = threading.Timer(0.3, mirror.serve, [make_upload(cycle)])
    appear.start()
    wait_until_ready(cycle, [mirror.source], deadline=soon(20), poll_seconds=0.1, policy=policy)
    appear.join()


def test_a_mirror_in_trouble_is_asked_again(cycle, mirror, answers, upload, policy) -> None:
    mirror.fault(".index", *[answers.status(503)] * 9)
    wait_until_ready(cycle, [mirror.source], deadline=soon(20), poll_seconds=0.05, policy=policy)


def test_a_wrong_index_is_looked_at_again(cycle, mirror, upload, policy) -> None:
    location = analysis_files(cycle, mirror.source)
    mirror.put(location.index_url, b"<html>busy</html>")
    repair = threading.Timer(0.3, mirror.serve, [upload])
    repair.start()
    wait_until_ready(cycle, [mirror.source], deadline=soon(20), poll_seconds=0.1, policy=policy)
    repair.join()


def test_a_refusing_mirror_is_left_out_and_named(cycle, mirror, answers, policy) -> None:
    mirror.fault("fc.grib2", answers.status(403))
    with pytest.raises(SourceError, match=r"test: the mirror refuses \(HTTP 403\)") as caught:
        wait_until_ready(cycle, [mirror.source], deadline=soon(60), policy=policy)
    assert not isinstance(caught.value, NotYetAvailable)


def test_the_deadline_brings_each_last_answer(cycle, mirror, policy) -> None:
    sources = [mirror.source, elsewhere(mirror)]
    with pytest.raises(NotYetAvailable, match=r"test: not there \(HTTP 404\)") as caught:
        wait_until_ready(cycle, sources, deadline=soon(0.3), poll_seconds=0.1, policy=policy)
    assert "empty: not there" in caught.value.what


def test_where_nothing_can_come_it_ends_at_once(policy) -> None:
    old = Cycle.parse("2024-02-10T00Z")
    with pytest.raises(SourceError, match="lack fields"):
        wait_until_ready(
            old, [Source("x", "http://127.0.0.1:9")], deadline=soon(3600), policy=policy
        )


def test_nobody_is_asked_before_it_makes_sense(cycle, mirror, policy) -> None:
    """A mirror of T+6:30, waited for from T+6:00 to T+6:00:01, is asked once, at the end."""
    late = Source("late", mirror.root, earliest_minutes=390)
    start = datetime.now(UTC)

    def clock() -> datetime:
        return cycle.datetime + timedelta(hours=6) + (datetime.now(UTC) - start)

    deadline = cycle.datetime + timedelta(hours=6, seconds=1)
    with pytest.raises(NotYetAvailable):
        wait_until_ready(cycle, [late], deadline=deadline, clock=clock, policy=policy)
    assert len(mirror.requests) == 1
    assert all(source.earliest_minutes == 390 for source in ECMWF_MIRRORS)


def test_the_first_sight_is_kept(cycle, mirror, upload, policy, tmp_path: Path) -> None:
    book = tmp_path / "first_seen.json"
    for _ in range(2):
        wait_until_ready(cycle, [mirror.source], deadline=soon(20), policy=policy, sightings=book)
    seen = first_seen(book, cycle, "test")
    assert seen is not None
    assert timedelta(0) <= datetime.now(UTC) - seen < timedelta(seconds=60)
    assert first_seen(book, cycle.shift(-6), "test") is None
