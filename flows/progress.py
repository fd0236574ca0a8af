"""What a run shows while it works: bars on a terminal, one line per fact in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Advance = Callable[[int, int, str], None]
"""Called with (done, total, note); may be called from any thread."""

_log = logging.getLogger("mosaic_ops")


class Reporter(Protocol):
    """Shows the stages of a run as they go by."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """Announce a stage; the value advances it; leaving it ends it."""

    def say(self, fact: str) -> None:
        """One line worth keeping."""


class LogReporter:
    """One log line when a stage starts, one when it ends with its seconds."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Log the start and the end; progress in between goes to the debug level."""
        started = time.monotonic()
        _log.info("%s: started", title)
        yield lambda done, total, note: _log.debug("%s: %d of %d %s", title, done, total, note)
        _log.info("%s: done in %.1f s", title, time.monotonic() - started)

    def say(self, fact: str) -> None:
        """Log one fact."""
        _log.info("%s", fact)


class BarReporter:
    """A bar per stage on a terminal; plain lines when the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]ok[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        )

    def __enter__(self) -> BarReporter:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """Show a bar that fills as the stage advances, full when it ends."""
        started = time.monotonic()
        task = self._progress.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str) -> None:
            self._progress.update(task, completed=done, total=total, note=note)

        yield advance
        total = self._progress.tasks[task].total or 1
        self._progress.update(task, completed=total, total=total, note="")
        if not self._console.is_terminal:
            self._console.print(f"{title}: done in {time.monotonic() - started:.1f} s")

    def say(self, fact: str) -> None:
        """Print one fact above the bars."""
        self._console.print(fact, highlight=False)


@contextmanager
def shown(console: Console, log_format: str) -> Iterator[Reporter]:
    """Bars or lines for people; log lines only when the log is for machines ("json")."""
    if log_format == "json":
        yield LogReporter()
        return
    with BarReporter(console) as report:
        yield report
