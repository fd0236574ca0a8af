"""What to do about cycles that are not published: pure decisions on facts, no Prefect here.

The stores and the locks say what is done and what is in work; Prefect's runs only say what has
been tried and what is waiting for a worker.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.watch.status import Row
from mosaic_core.contract.cycle import Cycle

GRACE = dt.timedelta(minutes=5)
"""A run that says it runs while nobody holds its cycle's lock is dead after this long; a run that
is overdue by this much found no worker."""

BACK_OFF = (dt.timedelta(0), dt.timedelta(minutes=5), dt.timedelta(minutes=20))
"""Pause after the first, second, third failure of a cycle (and the last for all later ones)."""

NO_SOURCE = "NoSource"
"""Name of the state of a run that ended because no mirror had the analysis. It is no attempt:
an outage may last as long as it likes."""

Kind = Literal["start", "crash", "skip", "reorder"]


@dataclass(frozen=True)
class Run:
    """One Prefect run of a cycle. `state` is the state's type, `label` its name, `since` when the
    run came into it."""

    id: str
    cycle: Cycle
    state: str
    name: str
    since: dt.datetime
    due: dt.datetime
    tags: frozenset[str] = frozenset()
    label: str = ""

    @property
    def waits(self) -> bool:
        """Nothing has picked it up."""
        return self.state == "SCHEDULED"

    @property
    def claims_to_work(self) -> bool:
        """Prefect believes that a process is working on it."""
        return self.state in {"PENDING", "RUNNING", "CANCELLING"}

    @property
    def failed(self) -> bool:
        """It ended badly; a cancelled run counts, somebody wanted it to end."""
        return self.state in {"FAILED", "CRASHED", "CANCELLED"}

    @property
    def lacked_source(self) -> bool:
        """It failed, and only because there was nothing to start from."""
        return self.failed and self.label == NO_SOURCE


@dataclass(frozen=True)
class Attendance:
    """A pool: the workers that are there, the one that was there last, overdue runs."""

    pool: str
    online: tuple[str, ...]
    last: str | None
    waiting: int

    @property
    def is_missed(self) -> bool:
        """Nobody is there although somebody was, or is wanted. A pool never used is no fault."""
        return not self.online and bool(self.last or self.waiting)


@dataclass(frozen=True)
class Action:
    """One thing to do: start a run of `cycle` at `at`, or change the run `run`.

    `number` is how many runs of the cycle are over: deciders that see the same start one run.
    """

    kind: Kind
    cycle: Cycle
    reason: str
    run: str | None = None
    at: dt.datetime | None = None
    number: int = 0


@dataclass(frozen=True)
class Verdict:
    """Actions in the order to take them; cycles out of attempts; runs that found no worker."""

    actions: tuple[Action, ...]
    given_up: tuple[Cycle, ...]
    unserved: tuple[Run, ...]


def decide(table: Sequence[Row], runs: Iterable[Run], now: dt.datetime, attempts: int) -> Verdict:
    """What to do about `table` (newest cycle first) given the runs of its cycles.

    Zombies are declared crashed and their cycles started again in the same pass; missing cycles
    are started; each cycle gets `attempts` runs, not counting those that found no source. Starts
    and waiting runs are ordered newest cycle first, a second apart, because a worker takes the
    earliest first.
    """
    by_cycle = _grouped(runs)
    zombies = [_crash(run) for row in table for run in _zombies(row, by_cycle, now)]
    dead = {action.run for action in zombies}
    skips = [_skip(run) for row in table for run in _outdated(row, by_cycle)]
    plans = [_plan(row, by_cycle.get(row.cycle, ()), dead, now, attempts) for row in table]
    starts = [action for plan in plans for action in plan.starts]
    unserved = [run for plan in plans for run in plan.unserved]
    return Verdict(
        actions=(*zombies, *skips, *_in_order(starts, unserved, now)),
        given_up=tuple(row.cycle for row, plan in zip(table, plans, strict=True) if plan.given_up),
        unserved=tuple(unserved),
    )


@dataclass(frozen=True)
class _Plan:
    starts: tuple[Action, ...] = ()
    unserved: tuple[Run, ...] = ()
    given_up: bool = False


def _plan(
    row: Row, runs: Sequence[Run], dead: set[str | None], now: dt.datetime, attempts: int
) -> _Plan:
    """Leave alone what is published, in work, expired or about to run, and what the published root
    does not tell of; else start or give up."""
    if row.state in {"published", "working", "expired", "unreachable"}:
        return _Plan()
    waiting = [run for run in runs if run.waits]
    if waiting:
        return _Plan(unserved=tuple(run for run in waiting if now - run.due > GRACE))
    if any(run.claims_to_work and run.id not in dead for run in runs):
        return _Plan()
    failures = [run for run in runs if run.failed or run.id in dead]
    tries = sum(not run.lacked_source for run in failures)
    if tries >= attempts:
        return _Plan(given_up=True)
    if failures and now < _next_try(failures, tries):
        return _Plan()
    reason = f"attempt {tries + 1} of {attempts}" if failures else "no run was scheduled"
    return _Plan(starts=(Action("start", row.cycle, reason, number=len(runs)),))


def _next_try(failures: Sequence[Run], tries: int) -> dt.datetime:
    last = max(failures, key=lambda run: run.since)
    place = len(BACK_OFF) if last.lacked_source else min(tries, len(BACK_OFF))
    return last.since + BACK_OFF[place - 1]


def _zombies(row: Row, by_cycle: Mapping[Cycle, Sequence[Run]], now: dt.datetime) -> list[Run]:
    """Runs that claim to work although nobody holds the lock; also of published cycles."""
    if row.state == "working":
        return []
    runs = by_cycle.get(row.cycle, ())
    return [run for run in runs if run.claims_to_work and now - run.since > GRACE]


def _outdated(row: Row, by_cycle: Mapping[Cycle, Sequence[Run]]) -> list[Run]:
    """Waiting runs of cycles that are past their usefulness."""
    runs = by_cycle.get(row.cycle, ())
    return [run for run in runs if run.waits] if row.state == "expired" else []


def _in_order(starts: list[Action], unserved: list[Run], now: dt.datetime) -> list[Action]:
    """Starts and waiting runs, newest cycle first, a second apart from `now`."""
    moves = [
        Action("reorder", run.cycle, "newest cycle first", run=run.id)
        for run in (unserved if len(unserved) > 1 else ())
    ]
    newest_first = sorted((*starts, *moves), key=lambda action: action.cycle, reverse=True)
    return [
        Action(
            action.kind,
            action.cycle,
            action.reason,
            run=action.run,
            at=now + dt.timedelta(seconds=place),
            number=action.number,
        )
        for place, action in enumerate(newest_first)
    ]


def _crash(run: Run) -> Action:
    return Action("crash", run.cycle, "no process holds the lock of its cycle", run=run.id)


def _skip(run: Run) -> Action:
    return Action("skip", run.cycle, "past its usefulness", run=run.id)


def _grouped(runs: Iterable[Run]) -> dict[Cycle, list[Run]]:
    grouped: dict[Cycle, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.cycle, []).append(run)
    return grouped
