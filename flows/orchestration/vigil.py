"""Watching a run from outside: it ends, it finds no worker, or its machine has died.

Prefect says Running for ever of a run whose machine died; the lock that the run's process holds is
let go by the kernel, so the lock tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed, Pending

from flows.orchestration.pools import workers_of
from flows.progress import Reporter

NO_WORKER_SECONDS = 20.0
"""A worker that is there takes a run within ten seconds, unless it is as busy as it may be."""

NO_START_SECONDS = 300.0
"""From a worker's claim to a process that says it runs: 4 to 10 s, a minute under load."""

SILENCE_SECONDS = 60.0
"""A run that says it runs takes its lock within a second; after this long it is dead."""


class Vigil:
    """Over one run. `has_lock` says whether a process holds the lock of its work."""

    def __init__(self, run: UUID, has_lock: Callable[[], bool], report: Reporter) -> None:
        self._run, self._has_lock, self._report = run, has_lock, report
        self._unserved = Patience(NO_WORKER_SECONDS)
        self._claimed = Patience(NO_START_SECONDS)
        self._silent = Patience(SILENCE_SECONDS)

    def look(self, client: SyncPrefectClient) -> FlowRun:
        """The run as it is now. Says so when no worker takes it; declares a dead one crashed."""
        found = client.read_flow_run(self._run)
        state = found.state or Pending()
        if self._unserved.is_over(state.is_scheduled()):
            self._say_who_is_missing(client, found)
        silent = self._silent.is_over(state.is_running() and not self._has_lock())
        if self._claimed.is_over(state.is_pending()) or silent:
            dead: State[None] = Crashed(message="no process holds the lock of its work")
            client.set_flow_run_state(self._run, dead, force=True)
        return found

    def _say_who_is_missing(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """A run that stands in line behind others waits for nobody."""
        pool = run.work_pool_name
        if pool is not None and not workers_of(client, pool).online:
            self._report.say(
                f"{run.name} waits: pool {pool} has no worker; start one on a machine of that "
                f"pool: mosaic-ops worker {pool}"
            )


class Patience:
    """Tells that something has held without a break for so many seconds, and again when it has
    for twice as long more: rarer and rarer."""

    def __init__(self, seconds: float) -> None:
        self._first = self._seconds = seconds
        self._since: float | None = None

    def is_over(self, holds: bool) -> bool:
        """True when it holds now and has for long enough."""
        now = time.monotonic()
        if not holds:
            self._since, self._seconds = None, self._first
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < self._seconds:
            return False
        self._since, self._seconds = now, 2 * self._seconds
        return True
