"""Cycles are 00, 06, 12 and 18 UTC and nothing else."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T06Z", "20261123T06Z", "2026112306", "2026-11-23 06:00", "2026-11-23T06:00:00Z"],
)
def test_reads_the_usual_forms(text: str) -> None:
    cycle = Cycle.parse(text)
    assert cycle.id == "20261123T06Z"
    assert cycle.label == "2026-11-23T06Z"
    assert cycle.init_time == np.datetime64("2026-11-23T06", "ns")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-23T03Z", "is not a cycle"),
        ("2026-02-30T00Z", "is not a date"),
        ("2026-11-23T25Z", "is not a date"),
        ("yesterday", "cannot read"),
        ("2026-11-23T06:30Z", "cannot read"),
        ("2026-11-23T06+01:00", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_refuses_what_is_no_cycle(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Cycle.parse(text)
    assert caught.value.remedy


def test_refuses_other_time_zones() -> None:
    zone = dt.timezone(dt.timedelta(hours=1))
    with pytest.raises(InputError, match="not in UTC"):
        Cycle(dt.datetime(2026, 11, 23, 6, tzinfo=zone))


def test_history_is_oldest_first_and_ends_with_the_cycle() -> None:
    cycle = Cycle.parse("2026-03-01T00Z")
    labels = [each.label for each in cycle.history(4, 6)]
    assert labels == ["2026-02-28T06Z", "2026-02-28T12Z", "2026-02-28T18Z", "2026-03-01T00Z"]
    assert [each.label for each in cycle.history(2, 24)] == ["2026-02-28T00Z", "2026-03-01T00Z"]


def test_numpy_round_trip_and_order() -> None:
    cycle = Cycle.parse("1999-12-31T18Z")
    assert Cycle.from_datetime64(cycle.init_time) == cycle
    assert cycle < cycle.shift(6)


def test_latest_before_floors_to_the_cycle() -> None:
    moment = dt.datetime(2026, 11, 23, 5, 59, 59, tzinfo=dt.UTC)
    assert Cycle.latest_before(moment).label == "2026-11-23T00Z"
