"""One pass over the cycles: look, decide, act, tell. The flow and the command both call this."""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefect.client.orchestration import SyncPrefectClient

from flows.orchestration.backfill_runs import revive
from flows.orchestration.pools import attendance
from flows.orchestration.runs import carry_out, live_runs, name_waiting
from flows.settings import Settings
from flows.timetable import CYCLE_STEP_HOURS
from flows.watch.alerts import Alert, sender, update_alerts
from flows.watch.conditions import RECONCILED_KINDS, Seen, conditions
from flows.watch.gate import gate_verdicts
from flows.watch.reconcile import Run, Verdict, decide
from flows.watch.status import WINDOW_CYCLES, Freshness, Row, freshness, rows, write_status
from mosaic_core.contract.errors import PublishError
from postprocess.publish import settle

_log = logging.getLogger("mosaic_ops")

AFTERWARDS_HOURS = 24.0
"""Waiting runs of cycles expired within this time are cleared away."""


@dataclass(frozen=True)
class Pass:
    """What one pass saw, decided and told."""

    table: tuple[Row, ...]
    figures: Freshness
    verdict: Verdict
    raised: tuple[Alert, ...]
    revived: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: what was done."""
        counts: dict[str, int] = {}
        for action in self.verdict.actions:
            counts[action.kind] = counts.get(action.kind, 0) + 1
        done = [f"{number} to {kind}" for kind, number in counts.items()]
        done += [f"{len(self.verdict.given_up)} given up"] if self.verdict.given_up else []
        done += [f"{name} goes on" for name in self.revived]
        done += [f"alert {alert.key}" for alert in self.raised]
        return ", ".join(done) or "nothing to do"


def reconcile_once(
    settings: Settings, client: SyncPrefectClient, now: dt.datetime, *, dry_run: bool = False
) -> Pass:
    """Bring every due cycle closer to publication; with `dry_run` only say what would be done."""
    table = rows(settings, now, count=_count(settings))
    figures = freshness(table, settings.objective_hours, now)
    runs = live_runs(client, since=table[-1].cycle.datetime)
    table = since_installed(table, runs)
    verdict = decide(table, runs, now, settings.attempts)
    if dry_run:
        return Pass(table, figures, verdict, ())
    name_waiting(client, runs)
    carry_out(client, verdict.actions)
    revived = revive(client, settings, now)
    raised = tell(look(table, verdict, settings, client, now), settings, now)
    settle_newest(table, settings)
    write_status(settings, now, table, figures)
    return Pass(table, figures, verdict, raised, revived)


def settle_newest(table: Sequence[Row], settings: Settings) -> None:
    """Have `latest.json` and the catalogue name the newest published cycle, whoever was killed.

    A store that fails costs this pass nothing else.
    """
    for row in [row for row in table if row.state == "published"][:1]:
        try:
            settle(settings.published, row.cycle)
        except PublishError as error:
            _log.warning("latest.json and catalogue are not brought up to date: %s", error)


def since_installed(table: Sequence[Row], runs: Iterable[Run]) -> tuple[Row, ...]:
    """The rows (newest first) down to the oldest cycle anybody asked for, at least the newest.

    A fresh installation does not make up for the days before it.
    """
    asked = {run.cycle for run in runs}
    ours = [place for place, row in enumerate(table) if row.was_begun or row.cycle in asked]
    return tuple(table[: (ours[-1] if ours else 0) + 1])


def look(
    table: tuple[Row, ...],
    verdict: Verdict,
    settings: Settings,
    client: SyncPrefectClient,
    now: dt.datetime,
) -> Seen:
    """The cycles with what else an alert can be about."""
    judged = gate_verdicts((row.cycle for row in table), settings.archive)
    return Seen(table, verdict, tuple(attendance(client, now)), judged)


def tell(seen: Seen, settings: Settings, now: dt.datetime) -> tuple[Alert, ...]:
    """Raise what holds now and end what does not; the alerts that are new."""
    found = conditions(seen, settings, now)
    return update_alerts(found, settings.alerts, now, sender(settings), RECONCILED_KINDS)


def _count(settings: Settings) -> int:
    """Cycles to look at: all that can be made up for, and at least the window of the figures."""
    looked_back = math.ceil((settings.catchup_hours + AFTERWARDS_HOURS) / CYCLE_STEP_HOURS)
    return max(looked_back, WINDOW_CYCLES)
