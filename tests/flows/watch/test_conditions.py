"""When somebody is told, and when not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.watch.alerts import Alert, records
from flows.watch.conditions import Seen, check_alive, check_or_tell, conditions
from flows.watch.gate import gate_verdicts
from flows.watch.reconcile import Attendance, Verdict
from flows.watch.status import Row
from ingest.gate.verdict import Limits
from ingest.gate.verdict import Verdict as GateVerdict
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from tests.flows.records import NEWEST, NOW, publish, receipt, row, run, settings

CALM = Verdict((), (), ())


def told(
    tmp_path: Path,
    *table: Row,
    verdict: Verdict = CALM,
    served: Sequence[Attendance] = (),
    judged: dict[Cycle, GateVerdict] | None = None,
    **changes: Any,
) -> dict[str, Alert]:
    seen = Seen(table, verdict, served, judged or {})
    return {alert.kind: alert for alert in conditions(seen, settings(tmp_path, **changes), NOW)}


def test_all_is_quiet_when_all_is_well(tmp_path: Path) -> None:
    publish(settings(tmp_path).published, NEWEST, members=4)
    assert not told(tmp_path, row(NEWEST, "published"), row(NEWEST.shift(-6), "expired"))


def test_a_due_cycle_is_late_only_after_the_deadline(tmp_path: Path) -> None:
    assert not told(tmp_path, row(NEWEST, "due"))  # T+7 h
    late = told(tmp_path, row(NEWEST.shift(-6), "due"))["late"]  # T+13 h
    assert late.subject == "2026-11-22T18Z"
    assert "T+9 h" in late.cause


def test_a_given_up_cycle_is_told_with_its_stage_and_reason(tmp_path: Path) -> None:
    failed = receipt(NEWEST, "rollout", 6.9, 9, status="failed", reason="CUDA out\nof memory")
    verdict = Verdict((), (NEWEST,), ())
    alert = told(tmp_path, row(NEWEST, "failed", failed), verdict=verdict)["failed"]
    assert (alert.stage, alert.cause) == ("rollout", "3 runs failed. CUDA out of memory")
    assert alert.command == "mosaic-ops run 2026-11-23T00Z"
    assert not told(tmp_path, row(NEWEST, "failed", failed))


def test_an_alert_names_the_container_where_its_command_belongs(tmp_path: Path) -> None:
    there = "docker compose run --rm worker-gpu"
    publish(settings(tmp_path).published, NEWEST, members=3)
    refused = receipt(NEWEST.shift(-6), "gate", 6.9, 9, status="failed", reason="why")
    alerts = told(
        tmp_path,
        row(NEWEST, "published"),
        row(NEWEST.shift(-6), "failed", refused),
        gpu_command=there,
    )
    assert alerts["members"].command == f"{there} canary"
    assert alerts["refused"].command == f"{there} run 2026-11-22T18Z"
    assert alerts["late"].command == "mosaic-ops status"


@pytest.mark.parametrize(("stage", "kind"), [("wait", "source"), ("gate", "refused")])
def test_a_stale_source_and_a_refused_analysis_have_their_own_kind(
    stage: str, kind: str, tmp_path: Path
) -> None:
    failed = receipt(NEWEST, stage, 6.9, 9, status="failed", reason="why")
    assert set(told(tmp_path, row(NEWEST, "failed", failed))) == {kind}


def test_an_old_failure_that_was_overcome_is_not_told(tmp_path: Path) -> None:
    failed = receipt(NEWEST, "wait", 6.8, 9, status="failed", reason="why")
    again = receipt(NEWEST, "fetch", 6.9, None)
    assert not told(tmp_path, row(NEWEST, "working", failed, again))


def test_sick_members_are_told(tmp_path: Path) -> None:
    """A quarantined member stays in the store, so the members of it are as many as ever."""
    sick = ["member 2: noise of u is 9, limit 3, at +6 h"]
    publish(settings(tmp_path).published, NEWEST, members=4, sick=sick)
    alert = told(tmp_path, row(NEWEST, "published"))["members"]
    assert alert.cause == f"3 of 4 members are published healthy; {sick[0]}"


def test_fewer_members_than_are_wanted_now_are_told(tmp_path: Path) -> None:
    publish(settings(tmp_path).published, NEWEST, members=3)
    alert = told(tmp_path, row(NEWEST, "published"))["members"]
    assert alert.cause == "3 of 4 members are published healthy"


def test_runs_that_nobody_takes_and_a_full_disk_are_told(tmp_path: Path) -> None:
    verdict = Verdict((), (), (run(NEWEST, "SCHEDULED", 20),))
    found = told(tmp_path, verdict=verdict, minimum_free_gb=1e6)
    assert set(found) == {"worker", "disk"}
    assert "2026-11-23T00Z" in found["worker"].cause


def test_a_worker_that_is_gone_is_told_by_its_pool(tmp_path: Path) -> None:
    cpu = Attendance("cpu", ("cpu-1",), "cpu-1", 3)
    assert not told(tmp_path, served=[cpu, Attendance("gpu", (), None, 0)]), "a pool never used"
    verdict = Verdict((), (), (run(NEWEST, "SCHEDULED", 20),))
    for gone in (Attendance("gpu", (), "gpu-1", 0), Attendance("gpu", (), None, 2)):
        alert = told(tmp_path, verdict=verdict, served=[cpu, gone])["worker"]
        assert alert.key == "worker-gpu", "what it leads to is not told as well"
        assert alert.cause.endswith(f"runs waiting: {gone.waiting}")
        assert (gone.last or "never there") in alert.cause
        assert alert.command == "mosaic-ops workers"


def judged(value: float) -> GateVerdict:
    return GateVerdict((Limits(1.0, 2.0, "two is too many").judge("spread", "u", value),))


def test_an_analysis_that_passed_with_a_warning_is_told(tmp_path: Path) -> None:
    publish(settings(tmp_path).published, NEWEST, members=4)
    shown = row(NEWEST, "published")
    assert not told(tmp_path, shown, judged={NEWEST: judged(0.9)})
    alert = told(tmp_path, shown, judged={NEWEST: judged(1.5)})["warned"]
    assert alert.cause == "spread of u: 1.5, limit 2 (two is too many)"
    assert alert.command == "mosaic-ops gate 2026-11-23T00Z"
    assert not told(tmp_path, shown, judged={NEWEST: judged(1.5)}, catchup_hours=6.5), "history"


def test_without_an_archive_the_gate_has_said_nothing(tmp_path: Path) -> None:
    assert gate_verdicts([NEWEST], tmp_path / "analyses.zarr") == {}


def test_the_dead_man_speaks_when_nothing_is_published_or_it_is_too_old(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with pytest.raises(PublishError, match="no cycle is published"):
        check_alive(config, NOW)
    publish(config.published, NEWEST, members=4)
    assert check_alive(config, NOW + dt.timedelta(hours=9)) == NEWEST
    with pytest.raises(PublishError, match=r"24\.0 h old; 16 h are allowed"):
        check_alive(config, NOW + dt.timedelta(hours=17))


def test_the_dead_man_tells_once_and_ends_by_itself(tmp_path: Path) -> None:
    config = settings(tmp_path)
    for _ in range(2):
        with pytest.raises(PublishError):
            check_or_tell(config, NOW, 16)
    assert [record.over for record in records(config.alerts)] == [None]
    publish(config.published, NEWEST, members=4)
    assert check_or_tell(config, NOW, 16) == NEWEST
    assert records(config.alerts)[0].over == NOW
