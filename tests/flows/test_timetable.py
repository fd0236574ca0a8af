"""Which cycles are due when."""

from __future__ import annotations

import datetime as dt

import pytest

from flows.timetable import due_cycle, due_cycles, refuse_future
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("now", "cycle"),
    [
        ("2026-11-23T06:29", "2026-11-22T18Z"),
        ("2026-11-23T06:30", "2026-11-23T00Z"),
        ("2026-11-23T06:45", "2026-11-23T00Z"),
        ("2026-11-23T12:45", "2026-11-23T06Z"),
        ("2026-11-24T00:45", "2026-11-23T18Z"),
    ],
)
def test_the_due_cycle_is_the_newest_that_can_be_on_the_mirrors(now: str, cycle: str) -> None:
    assert due_cycle(moment(now)) == Cycle.parse(cycle)


def test_due_cycles_are_newest_first_and_end_at_the_horizon() -> None:
    found = due_cycles(moment("2026-11-23T07:00"), horizon_hours=24)
    assert [cycle.label for cycle in found] == [
        "2026-11-23T00Z", "2026-11-22T18Z", "2026-11-22T12Z", "2026-11-22T06Z",
    ]  # fmt: skip


def test_a_future_cycle_is_refused_with_the_newest_there_is() -> None:
    now = moment("2026-11-23T07:00")
    assert refuse_future(Cycle.parse("2026-11-23T06Z"), now)
    with pytest.raises(InputError, match="in the future") as refused:
        refuse_future(Cycle.parse("2026-11-23T12Z"), now)
    assert "2026-11-23T00Z" in refused.value.remedy
