"""Backfills: the plan before anything is fetched, each analysis once, failures by themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from flows import backfill, estimates, forecast
from flows import plan as planning
from flows.progress import LogReporter
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from tests.flows import toy_stages
from tests.flows.records import NOW, publish, receipt

FIRST = Cycle.parse("2026-11-01T00Z")
MIRROR = "near=http://mirror.invalid/forecasts"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for module in (backfill, forecast, planning):
        monkeypatch.setattr(module, "stages", toy_stages)
    return Settings(
        data_root=tmp_path, variant="mini", members=4, lead_hours=24, mirrors=(MIRROR,),
        deadline_hours=0.2, poll_seconds=0.1,
    )  # fmt: skip


def cycles(count: int) -> tuple[Cycle, ...]:
    return planning.window(FIRST, FIRST.shift(6 * (count - 1)), 6, NOW)


def offer(settings: Settings, count: int) -> None:
    """All analyses that `count` cycles from FIRST need."""
    toy_stages.offer(settings, *(FIRST.shift(6 * place) for place in range(-3, count)))


def run(settings: Settings, count: int) -> dict[Cycle, str]:
    plan = planning.make_plan(cycles(count), settings, NOW)
    report = LogReporter()
    unread = backfill.ingest_all(plan.to_fetch, settings, report, 4, "threads")
    skip = backfill.failed_histories(plan.cycles, unread, settings)
    return backfill.run_here(plan, settings, report, skip)


def work(settings: Settings, kind: str) -> Counter[str]:
    lines = (line.split() for line in toy_stages.ledger(settings))
    return Counter(words[1] for words in lines if words[0] == kind)


@pytest.mark.parametrize(
    ("first", "last", "every", "fault"),
    [
        ("2026-11-02T00Z", "2026-11-01T00Z", 6, "ends"),
        ("2026-11-01T00Z", "2026-11-30T00Z", 6, "not due yet"),
        ("2026-11-01T00Z", "2026-11-02T00Z", 5, "multiple of 6"),
        ("2026-11-01T00Z", "2026-11-02T00Z", 0, "multiple of 6"),
        ("2020-01-01T00Z", "2026-11-01T00Z", 6, "more than a year"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    first: str, last: str, every: int, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        planning.window(Cycle.parse(first), Cycle.parse(last), every, NOW)


def test_hours_are_read_or_refused() -> None:
    assert planning.every_hours("24h") == 24
    with pytest.raises(InputError, match="as hours"):
        planning.every_hours("daily")


def test_a_plan_counts_each_analysis_once_and_says_what_it_costs(settings: Settings) -> None:
    plan = planning.make_plan(cycles(8), settings, NOW)
    assert len(plan.cycles) == 8
    assert len(plan.needs) == len(plan.to_fetch) == 11  # 3 before the first cycle, then one each
    assert plan.fetch_bytes == 11 * estimates.ANALYSIS_BYTES
    assert plan.gpu_seconds == pytest.approx(8 * 4 * 4 * estimates.MEMBER_STEP_SECONDS)
    assert plan.costs.assumed == ("fetch", "gpu", "stored")
    assert not toy_stages.ledger(settings), "a plan fetches nothing"


def test_a_plan_goes_by_what_was_measured_here(settings: Settings) -> None:
    before = FIRST.shift(-24)
    publish(settings.published, before, members=2)
    receipt(before, "rollout", 7, 32.0).write(settings.receipts)
    receipt(before, "publish", 7.1, 1.0).write(settings.receipts)
    plan = planning.make_plan(cycles(8), settings, NOW)
    assert plan.costs.assumed == ("fetch", "stored")
    assert plan.gpu_seconds == pytest.approx(8 * 64.0), "four members take twice as long as two"
    assert any("of GPU (measured here)" in line for line in planning.plan_lines(plan))
    assert any("forecasts go when older than 30 days" in line for line in planning.plan_lines(plan))
    receipt(before, "rollout", 7, 3.0, attempt=2).write(settings.receipts)
    again = planning.make_plan(cycles(8), settings, NOW)
    assert "gpu" in again.costs.assumed, "a rollout that went on where another died says nothing"


def test_a_processor_that_others_use_too_counts_by_its_own_seconds(settings: Settings) -> None:
    before = FIRST.shift(-24)
    publish(settings.published, before, members=4)
    slow = receipt(before, "rollout", 7, 900.0, cpu_seconds=32.0)
    slow.write(settings.receipts)
    receipt(before, "publish", 7.1, 1.0).write(settings.receipts)
    for device, seconds in (("cpu", 32.0), ("cuda", 900.0), ("auto", 900.0)):
        here = settings.model_copy(update={"device": device})
        assert estimates.device_seconds(slow, here) == seconds
        assert planning.make_plan(cycles(1), here, NOW).gpu_seconds == pytest.approx(seconds)


def test_dates_that_no_source_has_are_holes_with_the_reason(settings: Settings) -> None:
    some = settings.model_copy(update={"mirrors": ("ecmwf", "google")})
    gap = planning.window(Cycle.parse("2023-06-01T00Z"), Cycle.parse("2023-06-01T18Z"), 6, NOW)
    plan = planning.make_plan(gap, some, NOW)
    assert not plan.cycles
    assert set(plan.holes) == set(gap)
    text = "\n".join(planning.plan_lines(plan))
    assert "ecmwf: keeps 72 h only" in text
    assert "lack fields" in text


def test_mirrors_are_chosen_by_date(settings: Settings) -> None:
    some = settings.model_copy(update={"mirrors": ("ecmwf", "google")})
    last = Cycle.parse("2026-11-22T18Z")
    window = planning.window(last.shift(-96), last, 6, NOW)
    origins = {n.analysis: n.origin for n in planning.make_plan(window, some, NOW).needs}
    assert origins[last] == "ecmwf"
    assert origins[last.shift(-96)] == "google"


def test_every_cycle_is_run_and_every_analysis_fetched_once(settings: Settings) -> None:
    offer(settings, 8)
    assert not run(settings, 8)
    assert set(work(settings, "fetch").values()) == {1}
    assert len(work(settings, "fetch")) == 11
    archived = list(work(settings, "archive"))
    assert archived == sorted(archived), "judged by the change since the one before"
    assert work(settings, "publish") == {cycle.id: 1 for cycle in cycles(8)}


def test_again_does_nothing_again(settings: Settings) -> None:
    offer(settings, 3)
    run(settings, 3)
    done = toy_stages.ledger(settings)
    plan = planning.make_plan(cycles(3), settings, NOW)
    assert not plan.cycles
    assert not plan.to_fetch
    assert len(plan.published) == 3
    run(settings, 3)
    assert toy_stages.ledger(settings) == done


def test_a_stand_in_saves_the_cycles_after_a_bad_analysis(settings: Settings) -> None:
    """What a live run would publish, a backfill publishes too."""
    offer(settings, 8)
    bad = FIRST.shift(6)
    toy_stages.offer(settings, bad, fault="not GRIB")
    toy_stages.offer_forecast(settings, bad)
    failures = run(settings, 8)
    assert set(failures) == {bad}, "the newest analysis is never stood in for"
    assert set(work(settings, "publish")) == {cycle.id for cycle in cycles(8)} - {bad.id}
    worse = bad.shift(6)
    gaps = dict.fromkeys((bad, worse), "not GRIB")
    stopped = backfill.failed_histories(cycles(8), gaps, settings)
    assert set(stopped) == {bad, worse, worse.shift(6), worse.shift(12)}
    none = settings.model_copy(update={"forecast_fills": 0})
    assert len(backfill.failed_histories(cycles(8), gaps, none)) == 5


def test_a_plan_says_which_cycles_start_from_a_stand_in(settings: Settings) -> None:
    """A kept forecast bridges one analysis that no mirror has any more, not the newest, not two."""
    offer(settings, 8)
    assert not run(settings, 8)
    gone = cycles(8)[2:4]
    late = settings.model_copy(update={"mirrors": ("ecmwf",)})
    for each in gone:
        (settings.archive / f"{each.id}.json").unlink()
    toy_stages.offer_forecast(settings, gone[0])
    toy_stages.fill(gone[0], settings, LogReporter())
    again = late.model_copy(update={"published_root": str(settings.data_root / "other")})
    plan = planning.make_plan(cycles(8), again, NOW)
    assert set(plan.holes) == {*gone, *cycles(8)[4:7]}, "of two missing, one is not kept"
    toy_stages.offer(settings, gone[1])
    (settings.archive / f"{gone[1].id}.json").write_text("{}")
    plan = planning.make_plan(cycles(8), again, NOW)
    assert set(plan.holes) == {gone[0]}
    assert set(plan.stand_ins) == set(cycles(8)[3:6])
    assert not plan.to_fetch
    lines = planning.plan_lines(plan)
    assert f"{cycles(8)[3]} starts from the 6-h forecast for {gone[0]}" in lines
    none = again.model_copy(update={"forecast_fills": 0})
    assert len(planning.make_plan(cycles(8), none, NOW).holes) == 4


def test_another_shape_of_a_published_cycle_is_said_and_made_when_asked(
    settings: Settings,
) -> None:
    offer(settings, 3)
    assert not run(settings, 3)
    more = settings.model_copy(update={"members": 8})
    same, other = (planning.make_plan(cycles(3), each, NOW) for each in (settings, more))
    assert (len(same.others), len(other.others)) == (0, 3)
    assert "3 are published already" in planning.plan_lines(same)
    line = planning.plan_lines(other)[1]
    assert line.startswith("3 are published already, of them 3 with other members, length or")
    assert len(planning.make_plan(cycles(3), with_(more, variant="hres"), NOW).others) == 3

    before = toy_stages.ledger(settings)
    left = forecast.forecast_cycle(FIRST, more, LogReporter())
    assert "as mini 4 members 24 h, not mini 8 members 24 h; with --again" in left.why
    assert "nothing to do" in forecast.forecast_cycle(FIRST, settings, LogReporter()).why
    assert toy_stages.ledger(settings) == before

    better = forecast.forecast_cycle(FIRST, more, LogReporter(), again=True)
    assert better.made
    assert toy_stages.published_address(FIRST, settings) == better.address
    worse = forecast.forecast_cycle(FIRST, with_(settings, members=2), LogReporter(), again=True)
    assert not worse.made
    assert worse.address == better.address, "readers keep the better run"
    assert worse.why == f"computed again; {better.address} is at least as complete"


def with_(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def test_a_bad_analysis_stops_only_the_cycles_that_need_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"forecast_fills": 0})
    offer(settings, 8)
    bad = FIRST.shift(6)
    toy_stages.offer(settings, bad, fault="not GRIB")
    failures = run(settings, 8)
    assert set(failures) == {bad.shift(6 * place) for place in range(4)}
    assert all("not GRIB" in why for why in failures.values())
    plan = planning.make_plan(cycles(8), settings, NOW)
    lines = backfill.summary_lines(plan, failures)
    assert lines[0] == "0 of 4 cycles published, 4 failed"
    assert f"retry: mosaic-ops run {bad}" in "\n".join(lines)
    toy_stages.offer(settings, bad)
    assert not run(settings, 8)
    assert len(work(settings, "publish")) == 8


def test_a_window_that_no_source_has_is_an_error(settings: Settings) -> None:
    some = settings.model_copy(update={"mirrors": ("ecmwf",)})
    window = planning.window(FIRST, FIRST.shift(6), 6, NOW)
    with pytest.raises(InputError, match="none of the 2 cycles can be run: no source has") as said:
        planning.refuse_nothing_but_holes(planning.make_plan(window, some, NOW))
    assert "keeps 72 h only" in said.value.what
    assert "mosaic-ops sources plan" in said.value.remedy
    planning.refuse_nothing_but_holes(planning.make_plan(window, settings, NOW))


def test_the_ingest_runs_on_a_cluster_at_an_address(settings: Settings) -> None:
    """A scheduler behind a socket, its worker in this process, where the toys are."""
    offer(settings, 3)
    plan = planning.make_plan(cycles(3), settings, NOW)
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tcp://")
        assert not backfill.ingest_all(plan.to_fetch, settings, LogReporter(), 2, address)
    assert set(work(settings, "fetch").values()) == {1}
    assert len(work(settings, "fetch")) == 6


def test_an_unreachable_cluster_is_said(settings: Settings) -> None:
    offer(settings, 1)
    plan = planning.make_plan(cycles(1), settings, NOW)
    with pytest.raises(InputError, match=r"not installed|no Dask scheduler"):
        backfill.ingest_all(plan.to_fetch, settings, LogReporter(), 1, "tcp://127.0.0.1:9")
