"""One run at a time works on a cycle: a lock the kernel releases however the run ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError


class CycleIsBusyError(MosaicOpsError):
    """Another process works on this cycle (EX_TEMPFAIL)."""

    exit_code = 75


@contextmanager
def cycle_lock(cycle: Cycle, folder: Path) -> Iterator[None]:
    """Hold the cycle's lock; CycleIsBusyError names the process that holds it already.

    An advisory lock on a file: gone with the process, also after SIGKILL or a power cut. It
    serves one host; hosts that share a data root need a file system with POSIX locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cycle.id}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CycleIsBusyError(
                f"process {file.read().strip() or 'unknown'} is working on it",
                where=f"cycle {cycle}",
                remedy="wait for it, or stop that process; then run the command again",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
