"""What is done about cycles that are not published."""

from __future__ import annotations

import datetime as dt

import pytest

from flows.watch.reconcile import NO_SOURCE, Action, Run, Verdict, decide
from flows.watch.status import State
from tests.flows.records import NEWEST, NOW, row, run

OLDER, OLDEST = NEWEST.shift(-6), NEWEST.shift(-12)


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(action.kind, action.cycle.label) for action in verdict.actions]


@pytest.mark.parametrize("state", ["published", "working", "expired", "unreachable"])
def test_a_cycle_that_is_done_in_work_or_too_old_is_left_alone(state: State) -> None:
    assert decide([row(NEWEST, state)], [], NOW, 3) == Verdict((), (), ())


def test_missing_cycles_are_started_newest_first_a_second_apart() -> None:
    verdict = decide([row(NEWEST, "due"), row(OLDER, "due"), row(OLDEST, "due")], [], NOW, 3)
    assert kinds(verdict) == [("start", c.label) for c in (NEWEST, OLDER, OLDEST)]
    assert [action.at for action in verdict.actions] == [
        NOW, NOW + dt.timedelta(seconds=1), NOW + dt.timedelta(seconds=2),
    ]  # fmt: skip


def test_a_scheduled_run_that_is_not_late_is_waited_for() -> None:
    assert not decide([row(NEWEST, "due")], [run(NEWEST, "SCHEDULED", 1)], NOW, 3).actions
    assert not decide([row(NEWEST, "due")], [run(NEWEST, "SCHEDULED", -60)], NOW, 3).actions


def test_late_runs_without_a_worker_are_told_and_put_newest_first() -> None:
    table = [row(NEWEST, "due"), row(OLDER, "due")]
    late = [run(OLDER, "SCHEDULED", 300), run(NEWEST, "SCHEDULED", 30)]
    verdict = decide(table, late, NOW, 3)
    assert kinds(verdict) == [("reorder", NEWEST.label), ("reorder", OLDER.label)]
    assert {each.cycle for each in verdict.unserved} == {NEWEST, OLDER}
    one = decide(table[:1], late[1:], NOW, 3)
    assert not one.actions
    assert len(one.unserved) == 1


def test_a_zombie_is_declared_crashed_and_its_cycle_started_in_the_same_pass() -> None:
    verdict = decide([row(NEWEST, "interrupted")], [run(NEWEST, "RUNNING", 6)], NOW, 3)
    assert kinds(verdict) == [("crash", NEWEST.label), ("start", NEWEST.label)]
    assert verdict.actions[1].reason == "attempt 2 of 3"


def test_a_run_that_has_just_started_is_no_zombie() -> None:
    verdict = decide([row(NEWEST, "due")], [run(NEWEST, "RUNNING", 4)], NOW, 3)
    assert not verdict.actions


def test_a_zombie_of_a_published_cycle_is_declared_and_nothing_started() -> None:
    verdict = decide([row(NEWEST, "published")], [run(NEWEST, "RUNNING", 30)], NOW, 3)
    assert kinds(verdict) == [("crash", NEWEST.label)]


def test_a_crash_is_tried_again_at_once_a_second_failure_after_five_minutes() -> None:
    table = [row(NEWEST, "failed")]
    first = run(NEWEST, "CRASHED", 0)
    assert decide(table, [first], NOW, 3).actions == (
        Action("start", NEWEST, "attempt 2 of 3", at=NOW, number=1),
    )
    earlier = run(NEWEST, "CRASHED", 30)
    assert not decide(table, [earlier, run(NEWEST, "FAILED", 4, 2)], NOW, 3).actions
    again = decide(table, [earlier, run(NEWEST, "FAILED", 5, 2)], NOW, 3)
    assert [action.reason for action in again.actions] == ["attempt 3 of 3"]


def test_three_failures_are_enough() -> None:
    failures = [run(NEWEST, "FAILED", 60 * number, number) for number in (1, 2, 3)]
    verdict = decide([row(NEWEST, "failed")], failures, NOW, 3)
    assert not verdict.actions
    assert verdict.given_up == (NEWEST,)


def test_waiting_runs_of_expired_cycles_are_skipped() -> None:
    verdict = decide([row(OLDEST, "expired")], [run(OLDEST, "SCHEDULED", 3000)], NOW, 3)
    assert kinds(verdict) == [("skip", OLDEST.label)]


def test_a_run_that_skipped_or_deferred_is_no_attempt() -> None:
    done = [run(NEWEST, "FAILED", 30, 1), run(NEWEST, "COMPLETED", 10, 2)]
    verdict = decide([row(NEWEST, "due")], done, NOW, 3)
    assert [(action.reason, action.number) for action in verdict.actions] == [
        ("attempt 2 of 3", 2)
    ]  # fmt: skip


def without_source(minutes_ago: float, number: int) -> Run:
    return run(NEWEST, "FAILED", minutes_ago, number, label=NO_SOURCE)


def test_an_outage_of_the_mirrors_uses_up_no_attempts() -> None:
    """A run every twenty minutes for as long as the cycle is of use, then the usual attempts."""
    outage = [without_source(20 * number, number) for number in range(1, 100)]
    verdict = decide([row(NEWEST, "failed")], outage, NOW, 3)
    assert verdict.given_up == ()
    assert [action.reason for action in verdict.actions] == ["attempt 1 of 3"]
    assert not decide([row(NEWEST, "failed")], [without_source(19, 1)], NOW, 3).actions
    assert not decide([row(NEWEST, "expired")], outage, NOW, 3).actions
    broken = [run(NEWEST, "FAILED", 60 + number, 200 + number) for number in range(3)]
    assert decide([row(NEWEST, "failed")], [*outage, *broken], NOW, 3).given_up == (NEWEST,)
