"""One run at a time works on a cycle: a lock the kernel releases however the run ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError

LOOK_SECONDS = 0.05


class CycleIsBusyError(MosaicOpsError):
    """Another process works on this cycle (EX_TEMPFAIL)."""

    exit_code = 75


def is_worked_on(cycle: Cycle, folder: Path) -> bool:
    """Whether a live process holds the cycle's lock.

    The look takes a shared lock for an instant; cycle_lock tries twice because of it.
    """
    try:
        file = (folder / f"{cycle.id}.lock").open()
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def cycle_lock(cycle: Cycle, folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Hold the cycle's lock; CycleIsBusyError names the process that holds it already.

    `patient` waits for that process instead, however long it works.
    An advisory lock on a file: gone with the process, also after SIGKILL or a power cut. It
    serves one host; hosts that share a data root need a file system with POSIX locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cycle.id}.lock"
    with path.open("a+") as file:
        if patient:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not _taken(file):
            file.seek(0)
            raise CycleIsBusyError(
                f"process {file.read().strip() or 'unknown'} is working on it",
                where=f"cycle {cycle}",
                remedy="wait for it, or stop that process; then run the command again",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _taken(file: IO[str]) -> bool:
    """Take the lock, at the second try if need be: a look at the lock holds it for an instant."""
    for pause in (LOOK_SECONDS, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause)
        else:
            return True
    return False
