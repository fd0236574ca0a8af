"""prefect.yaml says what the code says."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())[
    "deployments"
]


def flow_of(deployment: dict[str, Any]) -> Any:
    module, name = deployment["entrypoint"].rsplit(".", 1)
    return getattr(import_module(module), name)


def full_name(deployment: dict[str, Any]) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']}-{d['name']}")
def test_entrypoints_are_flows_and_parameters_are_theirs(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    known = flow.parameters.properties
    assert set(deployment["parameters"]) <= set(known)
    assert all(each.get("description") for each in known.values())
    assert flow.description


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']}-{d['name']}")
def test_pools_and_queues_are_those_of_the_table(deployment: dict[str, Any]) -> None:
    from flows.orchestration.pools import pools

    queues = {pool.name: {queue.name for queue in pool.queues} for pool in pools(1)}
    wanted = deployment["work_pool"]
    assert wanted["work_queue_name"] in queues[wanted["name"]]
    assert not deployment.get("concurrency_limit"), "a lost lease would kill a healthy run"


def test_the_names_that_the_code_calls_are_there() -> None:
    from flows.orchestration import backfill_runs, deployed, runs

    names = {full_name(deployment) for deployment in DEPLOYMENTS}
    called = {
        runs.LIVE_DEPLOYMENT,
        backfill_runs.BACKFILL_DEPLOYMENT,
        deployed.RECONCILE_DEPLOYMENT,
        DEPLOYMENTS[0]["work_pool"]["job_variables"]["env"]["MOSAIC_OPS_ROLLOUT_DEPLOYMENT"],
    }
    assert called <= names
    assert len(names) == len(DEPLOYMENTS)


def test_the_schedule_is_the_measured_one_and_has_a_lasting_name() -> None:
    from flows.timetable import SCHEDULE_CRON

    live = next(each for each in DEPLOYMENTS if full_name(each) == "forecast/live")
    assert live["schedules"][0]["cron"] == SCHEDULE_CRON
    schedules = [schedule for each in DEPLOYMENTS for schedule in each["schedules"]]
    assert all(schedule["timezone"] == "UTC" and schedule["slug"] for schedule in schedules)


def test_hooks_have_the_names_that_workers_call() -> None:
    """A worker calls a dead run's hooks with keywords; other names fail there, and only there."""
    import inspect

    for deployment in DEPLOYMENTS:
        flow = flow_of(deployment)
        for hook in (*(flow.on_crashed_hooks or ()), *(flow.on_failure_hooks or ())):
            assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]
    forecast = flow_of(DEPLOYMENTS[0])
    assert forecast.on_crashed_hooks
    assert forecast.on_failure_hooks
