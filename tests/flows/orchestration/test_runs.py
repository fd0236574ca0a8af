"""Runs on a real server: what is decided is carried out however the runs before ended."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed

from flows import forecast, stages
from flows.orchestration import deployed, gpu_stage, runs
from flows.orchestration.tasks import POLICIES, LastStage
from flows.progress import LogReporter
from flows.timetable import age_hours, due_cycle
from flows.watch.reconcile import NO_SOURCE, decide
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ModelError
from tests.flows import toy_stages
from tests.flows.records import row, settings

CYCLE = Cycle.parse("2026-11-09T00Z")


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    """Of a server with the deployments that runs are asked of, and nobody to take them."""

    @flow(name="forecast")
    def one_cycle(cycle: str) -> None:
        """Never runs."""

    @flow(name="rollout")
    def rollout(cycle: str, variant: str, members: int, lead_hours: int) -> None:
        """Never runs."""

    with temporary_settings({PREFECT_API_URL: prefect_api}), runs.connected() as found:
        flows = [found.create_flow(each) for each in (one_cycle, rollout)]
        made = [
            found.create_deployment(each, name=name)
            for each, name in zip(flows, ("live", "untaken"), strict=True)
        ]
        yield found
        for run in found.read_flow_runs():
            found.delete_flow_run(run.id)
        for deployment in made:
            found.delete_deployment(deployment)


def known(client: SyncPrefectClient) -> list[runs.Run]:
    """The runs of the cycle."""
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    return [run for run in runs.live_runs(client, since) if run.cycle == CYCLE]


def one_pass(client: SyncPrefectClient) -> set[str]:
    """Two deciders see the same and carry it out; the runs that are then waiting."""
    verdict = decide([row(CYCLE, "due")], known(client), dt.datetime.now(dt.UTC), 9)
    for _ in range(2):
        runs.carry_out(client, verdict.actions)
    return {run.id for run in known(client) if run.waits}


def test_every_start_starts_a_run(client: SyncPrefectClient) -> None:
    """After one that was skipped, one that failed, and one that somebody deleted in the pages."""
    (skipped,) = one_pass(client)
    client.set_flow_run_state(skipped, Completed(name="Skipped"), force=True)
    (failed,) = one_pass(client)
    client.set_flow_run_state(failed, Failed(name=NO_SOURCE, message="no mirror"), force=True)
    assert [run.lacked_source for run in known(client) if run.id == failed] == [True]
    assert not one_pass(client), "twenty minutes have not passed"
    client.set_flow_run_state(failed, Failed(), force=True)
    (third,) = one_pass(client)
    client.set_flow_run_state(third, Completed(name="Skipped"), force=True)
    client.delete_flow_run(skipped)
    (fourth,) = one_pass(client)
    assert len({skipped, failed, third, fourth}) == 4


def test_standing_in_line_for_a_gpu_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(gpu_stage, "as_task", lambda stage, *_: called.append(stage))
    for deployment in (None, "rollout/gpu"):
        config = settings(tmp_path, rollout_deployment=deployment)
        run = gpu_stage.runner(config)
        run(stages.rollout, CYCLE, tmp_path, config, LogReporter())
    here, elsewhere = (POLICIES.get(stage.__name__) for stage in called)
    assert here is not None
    assert here.timeout_seconds
    assert elsewhere is None


def test_a_rollout_that_nobody_takes_ends_when_its_cycle_is_too_old(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    """It neither stays in line for ever nor is computed for nobody."""
    now = dt.datetime.now(dt.UTC)
    newest = due_cycle(now)
    limit = age_hours(newest, now) + 4 / 3600
    config = settings(tmp_path, rollout_deployment="rollout/untaken", catchup_hours=limit)
    with pytest.raises(ModelError, match="no worker took the rollout") as refused:
        gpu_stage._elsewhere("rollout/untaken", None, newest, config, LogReporter())
    assert "mosaic-ops workers" in refused.value.remedy
    (asked,) = (run for run in client.read_flow_runs() if run.name == f"rollout {newest}")
    assert asked.state_name == "Cancelled"


def ended_as(cycle: Cycle) -> State[Any]:
    """The state in which a forecast run over the toys ends."""
    state: State[Any] = deployed.forecast(cycle=cycle.label, return_state=True)
    return state


def test_a_run_says_whether_it_failed_for_want_of_a_source(
    client: SyncPrefectClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = {"DATA_ROOT": str(tmp_path), "VARIANT": "mini", "MEMBERS": "4", "LEAD_HOURS": "24"}
    for name, value in facts.items():
        monkeypatch.setenv(f"MOSAIC_OPS_{name}", value)
    monkeypatch.setenv("TOY_WAIT_SECONDS", "0.1")
    monkeypatch.setattr(forecast, "stages", toy_stages)
    monkeypatch.setattr(deployed, "exhibits_of", lambda *_: ())
    config = settings(tmp_path)
    lacking = ended_as(CYCLE)
    assert (lacking.type.value, lacking.name) == ("FAILED", NO_SOURCE)
    assert "no mirror has it" in (lacking.message or "")
    toy_stages.offer(config, *toy_stages.history(CYCLE, config))
    toy_stages.offer(config, CYCLE, fault="cut off")
    damaged = ended_as(CYCLE)
    assert (damaged.type.value, damaged.name) == ("FAILED", "Failed")
    toy_stages.offer(config, CYCLE)
    assert ended_as(CYCLE).name == "Published"


def test_the_last_stage_is_remembered_whether_or_not_it_ends_well() -> None:
    def broken() -> None:
        raise ModelError("broken")

    tried = LastStage(lambda stage, *arguments: stage(*arguments))
    assert tried(len, "abc") == 3
    with pytest.raises(ModelError):
        tried(broken)
    assert tried.name == "broken"
