"""One writer at a time, between processes of one host or one POSIX file system."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mosaic_core.contract.errors import ArchiveError

_POLL_SECONDS = 0.05


@contextmanager
def exclusive(lock: Path, *, wait_seconds: float, what: str) -> Iterator[None]:
    """Hold the lock file; the kernel drops it when the process dies, however it dies.

    Raises ArchiveError when another process still holds it after `wait_seconds`.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(handle, lock, wait_seconds, what)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, lock: Path, wait_seconds: float, what: str) -> None:
    give_up = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise ArchiveError(
                    f"another process has been writing for more than {wait_seconds:g} s",
                    where=what,
                    remedy=f"wait for it or end it; it holds {lock}",
                ) from None
            time.sleep(_POLL_SECONDS)
