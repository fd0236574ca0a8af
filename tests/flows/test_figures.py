"""What the figures of a run say of it."""

from __future__ import annotations

import pytest

from flows.demo import NOTICE
from flows.figures import stamp_of_run
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle

CYCLE = Cycle.parse("2026-11-23T00Z")


@pytest.mark.parametrize(("healthy", "told"), [(50, "50 members"), (48, "48 of 50 members")])
def test_members_are_those_that_are_left(healthy: int, told: str) -> None:
    stamp = stamp_of_run(CYCLE, healthy, Settings(variant="hres", members=50))
    assert stamp.line() == f"cycle 2026-11-23T00Z   Mosaic hres, {told}"


@pytest.mark.parametrize("notice", ["Experimental: physics under test", NOTICE, ""])
def test_the_notice_is_the_banner(notice: str) -> None:
    assert stamp_of_run(CYCLE, 50, Settings(members=50, notice=notice or None)).banner == notice


def test_the_demonstration_says_that_its_weights_are_random() -> None:
    assert "random weights" in NOTICE
    assert "not weather" in NOTICE
