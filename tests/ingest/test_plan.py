from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest.plan import stretches, whereabouts, window
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def sources(cycle: str) -> tuple[str, ...]:
    return whereabouts(Cycle.parse(cycle), NOW).sources


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        ("1975-06-01T00Z", ("wb2-era5",)),
        ("2019-06-01T06Z", ("wb2-hres", "wb2-era5")),
        ("2023-01-10T18Z", ("wb2-hres", "wb2-era5")),
        ("2023-01-11T00Z", ()),
        ("2023-06-01T00Z", ()),
        ("2024-03-01T00Z", ()),
        ("2024-06-01T00Z", ("google", "aws")),
        ("2025-06-01T06Z", ("google", "aws")),
        ("2026-11-22T06Z", ("ecmwf", "google", "aws")),
        ("2026-11-23T00Z", ()),
    ],
)
def test_where_a_cycle_comes_from(cycle: str, expected: tuple[str, ...]) -> None:
    assert sources(cycle) == expected


def test_what_is_not_proven_is_said() -> None:
    assert not whereabouts(Cycle.parse("2024-06-01T00Z"), NOW).proven
    assert whereabouts(Cycle.parse("2025-06-01T00Z"), NOW).proven


def test_from_nowhere_comes_with_each_reason() -> None:
    reasons = whereabouts(Cycle.parse("2023-06-01T00Z"), NOW).reasons
    assert set(reasons) == {"ecmwf", "google", "aws", "azure", "wb2-hres", "wb2-era5"}
    assert "lack fields" in reasons["aws"]
    assert "2023-01-10T18Z" in reasons["wb2-hres"]


def test_a_cycle_to_come_says_when() -> None:
    reasons = whereabouts(Cycle.parse("2026-11-23T00Z"), NOW).reasons
    assert reasons["ecmwf"] == "expected from 2026-11-23T06:30Z"


def test_bytes_follow_the_era() -> None:
    sizes = [whereabouts(Cycle.parse(c), NOW).bytes for c in
             ("2019-06-01T00Z", "2025-06-01T00Z", "2026-06-01T00Z", "2023-06-01T00Z")]  # fmt: skip
    assert sizes == [9_525_120, 59_200_000, 65_400_000, 0]


def test_a_window_is_told_in_stretches() -> None:
    start, end = Cycle.parse("2023-01-09T00Z"), Cycle.parse("2024-12-01T00Z")
    rows = [whereabouts(cycle, NOW) for cycle in window(start, end)]
    joined = stretches(rows)
    assert sum(stretch.count for stretch in joined) == len(rows)
    holes = [stretch for stretch in joined if not stretch.availability.sources]
    assert holes[0].first == Cycle.parse("2023-01-11T00Z")
    assert holes[-1].last == Cycle.parse("2024-03-05T00Z")


@pytest.mark.parametrize("hours", [0, -6, 4])
def test_a_spacing_that_reaches_no_end_is_refused(hours: int) -> None:
    with pytest.raises(InputError, match="not a multiple of 6 h"):
        next(window(Cycle.parse("2024-01-01T00Z"), Cycle.parse("2024-01-02T00Z"), hours))


def test_a_window_backwards_is_refused() -> None:
    with pytest.raises(InputError, match="before it starts"):
        list(window(Cycle.parse("2024-01-02T00Z"), Cycle.parse("2024-01-01T00Z")))
