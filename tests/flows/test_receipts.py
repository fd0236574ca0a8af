"""Each attempt of a stage leaves a receipt; a lock lets one process work on a cycle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.locks import CycleIsBusyError, cycle_lock
from flows.progress import LogReporter
from flows.receipts import Receipt, receipts_of, recorded
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError

CYCLE = Cycle.parse("2026-09-01T00Z")


def test_a_stage_that_ends_well_then_one_that_fails(tmp_path: Path) -> None:
    with recorded("fetch", CYCLE, tmp_path, LogReporter(), "fetching"):
        assert receipts_of(CYCLE, tmp_path)[0].status == "running"
    with (
        pytest.raises(DataError),
        recorded("archive", CYCLE, tmp_path, LogReporter(), "archiving"),
    ):
        raise DataError("no such field")
    fetch, archive = receipts_of(CYCLE, tmp_path)
    assert (fetch.stage, fetch.status, fetch.attempt) == ("fetch", "done", 1)
    assert fetch.finished is not None
    assert fetch.finished >= fetch.started
    assert fetch.seconds == (fetch.finished - fetch.started).total_seconds()
    assert fetch.cpu_seconds is not None
    assert fetch.cpu_seconds >= 0
    assert (archive.status, archive.reason) == ("failed", "no such field")


def test_attempts_are_counted(tmp_path: Path) -> None:
    for _ in range(3):
        with recorded("fetch", CYCLE, tmp_path, LogReporter(), "fetching"):
            pass
    assert receipts_of(CYCLE, tmp_path)[0].attempt == 3


def test_a_damaged_receipt_is_named(tmp_path: Path) -> None:
    path = tmp_path / CYCLE.id / "fetch.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(DataError, match=r"fetch\.json"):
        Receipt.read(path)


def test_a_damaged_receipt_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named and set aside, and the stage goes on as at its first attempt."""
    path = tmp_path / CYCLE.id / "fetch.json"
    path.parent.mkdir()
    for damage in ("", "{}", '{"cycle": "2026'):
        path.write_text(damage)
        assert receipts_of(CYCLE, tmp_path) == ()
        with recorded("fetch", CYCLE, tmp_path, LogReporter(), "fetching"):
            pass
        assert [(each.status, each.attempt) for each in receipts_of(CYCLE, tmp_path)] == [
            ("done", 1)
        ]  # fmt: skip
        assert path.with_suffix(".damaged").read_text() == damage
    assert str(path) in caplog.text
    assert str(path.with_suffix(".damaged")) in caplog.text


def test_a_receipt_of_a_later_version_is_read(tmp_path: Path) -> None:
    """After a rollback the receipts of the version before it are still there."""
    with recorded("fetch", CYCLE, tmp_path, LogReporter(), "fetching"):
        pass
    path = tmp_path / CYCLE.id / "fetch.json"
    path.write_text(path.read_text().replace('"host"', '"watts": 700, "host"'))
    assert receipts_of(CYCLE, tmp_path)[0].status == "done"
    with recorded("fetch", CYCLE, tmp_path, LogReporter(), "fetching"):
        pass
    assert receipts_of(CYCLE, tmp_path)[0].attempt == 2


HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from flows.locks import cycle_lock
    from mosaic_core.contract.cycle import Cycle
    with cycle_lock(Cycle.parse("2026-09-01T00Z"), Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
    """
)


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(CycleIsBusyError, match=f"process {holder.pid} is working"),
            cycle_lock(CYCLE, tmp_path),
        ):
            pass
        with cycle_lock(CYCLE.shift(6), tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with cycle_lock(CYCLE, tmp_path):
            pass
