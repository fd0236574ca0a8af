"""The rollout as a run of its own on the GPU pool, so that a cycle that waits holds no GPU."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled

from flows.locks import is_worked_on
from flows.orchestration.runs import (
    Request,
    ask,
    connected,
    cycle_tag,
    ended,
    find_deployment,
    shape_of,
    words,
)
from flows.orchestration.tasks import as_task
from flows.orchestration.vigil import Vigil
from flows.progress import Reporter
from flows.settings import Settings
from flows.timetable import age_hours
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ModelError

POLL_SECONDS = 2.0
BACKFILL_QUEUE = "backfill"
ROLLOUT_LOCKS = "rollout"


def runner(settings: Settings, queue: str | None = None) -> Callable[..., Any]:
    """How forecast_cycle is to call its stages: tasks here, the rollout where the GPUs are.

    Without `rollout_deployment` in the settings every stage runs in this process. `queue` is the
    GPU pool's queue, by default that of the deployment.
    """
    deployment = settings.rollout_deployment
    if deployment is None:
        return as_task

    def rollout_elsewhere(cycle: Cycle, _state: Path, settings: Settings, report: Reporter) -> Path:
        """Run the ensemble on the GPU pool, however long it stands in line there."""
        return _elsewhere(deployment, queue, cycle, settings, report)

    def run(stage: Callable[..., Any], *arguments: Any) -> Any:
        return as_task(rollout_elsewhere if stage.__name__ == "rollout" else stage, *arguments)

    return run


def _elsewhere(
    deployment: str, queue: str | None, cycle: Cycle, settings: Settings, report: Reporter
) -> Path:
    """Folder of the finished stores. A run that still works is joined, a dead one replaced.

    Raises ModelError with the last run's own words when every attempt failed.
    """
    request = _request(queue, cycle, settings)
    failure = ""
    with connected() as client:
        where = find_deployment(client, deployment)
        for attempt in range(1, settings.attempts + 1):
            run = ask(client, where, request, lambda run: _result(run) is not None)
            run = _finished(client, run.id, cycle, settings, report)
            if (folder := _result(run)) is not None:
                return folder
            failure = words(run)
            report.say(f"rollout of {cycle}, attempt {attempt}: {failure}")
    raise ModelError(
        f"{settings.attempts} rollout runs failed, the last one: {failure}",
        where=f"cycle {cycle}",
        remedy=f"on the GPU machine: {settings.gpu_command} canary, then "
        f"{settings.gpu_command} run {cycle}",
    )


def _request(queue: str | None, cycle: Cycle, settings: Settings) -> Request:
    shape = shape_of(settings)
    return Request(
        key="/".join(map(str, ("rollout", cycle.id, *shape.values()))),
        name=f"rollout {cycle}",
        parameters={"cycle": cycle.label, **shape},
        tags=(cycle_tag(cycle),),
        queue=queue,
    )


def _result(run: FlowRun) -> Path | None:
    """The folder that a completed run left; None when it failed or the folder is gone."""
    if run.state is None or not run.state.is_completed():
        return None
    folder = Path(run.state.message or "")
    return folder if run.state.message and folder.is_dir() else None


def _finished(
    client: SyncPrefectClient, run: UUID, cycle: Cycle, settings: Settings, report: Reporter
) -> FlowRun:
    """Wait for a run to end, well, badly or with its machine.

    ModelError when no worker took it until the cycle, which was of use when the wait began, was
    too old: the run is cancelled then.
    """
    locks = settings.locks / ROLLOUT_LOCKS
    vigil = Vigil(run, lambda: is_worked_on(cycle, locks), report)
    was_of_use = _is_of_use(cycle, settings)
    while not ended(found := vigil.look(client)):
        if found.state_type == StateType.SCHEDULED and was_of_use:
            _give_up_if_late(client, run, cycle, settings)
        time.sleep(POLL_SECONDS)
    return found


def _is_of_use(cycle: Cycle, settings: Settings) -> bool:
    return age_hours(cycle, dt.datetime.now(dt.UTC)) <= settings.catchup_hours


def _give_up_if_late(
    client: SyncPrefectClient, run: UUID, cycle: Cycle, settings: Settings
) -> None:
    if _is_of_use(cycle, settings):
        return
    late: State[None] = Cancelled(message="past its usefulness")
    client.set_flow_run_state(run, late, force=True)
    raise ModelError(
        f"no worker took the rollout within {settings.catchup_hours:g} h of the initial time",
        where=f"cycle {cycle}",
        remedy="mosaic-ops workers; mosaic-ops worker gpu on the GPU machine",
    )
