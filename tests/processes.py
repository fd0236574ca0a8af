"""Ending the programs that tests start."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import psutil

PATIENCE_SECONDS = 20.0


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end; what is still there after a while, it and its children, is killed.

    A worker that is asked waits for the runs it has in work, on a busy machine for minutes.
    """
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
