"""Which cycles are due when: pure functions of a moment."""

from __future__ import annotations

import datetime as dt

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError

CYCLE_STEP_HOURS = 6
SCHEDULE_CRON = "45 0,6,12,18 * * *"
"""UTC. Step 0 of a cycle is on the mirrors 6 h 45 min after its initial time."""

FEED_LAG = dt.timedelta(hours=6, minutes=30)
"""Earliest moment after the initial time at which a run of the cycle makes sense."""


def due_cycle(moment: dt.datetime) -> Cycle:
    """The newest cycle that can be on the mirrors at `moment` (aware)."""
    return Cycle.latest_before(moment - FEED_LAG)


def due_cycles(moment: dt.datetime, horizon_hours: float) -> tuple[Cycle, ...]:
    """Cycles that were due within the last `horizon_hours`, newest first."""
    newest = due_cycle(moment)
    oldest = moment - dt.timedelta(hours=horizon_hours)
    cycles, cycle = [], newest
    while cycle.datetime + FEED_LAG > oldest:
        cycles.append(cycle)
        cycle = cycle.shift(-CYCLE_STEP_HOURS)
    return tuple(cycles)


def age_hours(cycle: Cycle, moment: dt.datetime) -> float:
    """Hours from the initial time to `moment`."""
    return (moment - cycle.datetime).total_seconds() / 3600


def refuse_future(cycle: Cycle, moment: dt.datetime) -> Cycle:
    """The same cycle; InputError when it begins after `moment`."""
    if cycle.datetime > moment:
        raise InputError(
            f"cycle {cycle} is in the future",
            where=f"clock {moment:%Y-%m-%dT%H:%M}Z",
            remedy=f"the newest cycle now is {due_cycle(moment)}; if that is wrong, set the clock",
        )
    return cycle
