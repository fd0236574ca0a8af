"""One run at a time works on a cycle, however the others ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from flows.locks import CycleIsBusyError, cycle_lock, is_worked_on
from mosaic_core.contract.cycle import Cycle

ROOT = Path(__file__).resolve().parents[2]
CYCLE = Cycle.parse("2026-11-23T00Z")
HOLD = """
import sys, time
from pathlib import Path
from threading import Event, Thread
from flows.locks import cycle_lock
from mosaic_core.contract.cycle import Cycle
with cycle_lock(Cycle.parse("2026-11-23T00Z"), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_is_gone_with_a_killed_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert is_worked_on(CYCLE, tmp_path)
    with pytest.raises(CycleIsBusyError, match=str(holder.pid)), cycle_lock(CYCLE, tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_worked_on(CYCLE, tmp_path)
    with cycle_lock(CYCLE, tmp_path):
        assert is_worked_on(CYCLE, tmp_path)


def test_a_look_does_not_create_a_lock(tmp_path: Path) -> None:
    assert not is_worked_on(CYCLE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_patient_wait_for_the_other_process(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    entered = Event()

    def wait() -> None:
        with cycle_lock(CYCLE, tmp_path, patient=True):
            entered.set()

    Thread(target=wait, daemon=True).start()
    assert not entered.wait(0.3)
    holder.kill()
    assert entered.wait(30)
