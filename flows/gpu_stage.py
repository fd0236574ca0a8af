"""The rollout as a run of its own on the GPU pool, so that a cycle that waits holds no GPU."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.progress import Reporter
from flows.reconcile import GRACE
from flows.runs import connected, cycle_tag, find_deployment
from flows.settings import Settings
from flows.tasks import as_task
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ModelError

POLL_SECONDS = 2.0
BACKFILL_QUEUE = "backfill"


def runner(settings: Settings, queue: str | None = None) -> Callable[..., Any]:
    """How forecast_cycle is to call its stages: tasks here, the rollout where the GPUs are.

    Without `rollout_deployment` in the settings every stage runs in this process. `queue` is the
    GPU pool's queue, by default that of the deployment.
    """
    deployment = settings.rollout_deployment
    if deployment is None:
        return as_task

    def rollout(cycle: Cycle, _state: Path, settings: Settings, report: Reporter) -> Path:
        """Run the ensemble on the GPU pool."""
        return _elsewhere(deployment, queue, cycle, settings, report)

    def run(stage: Callable[..., Any], *arguments: Any) -> Any:
        return as_task(rollout if stage.__name__ == "rollout" else stage, *arguments)

    return run


def _elsewhere(
    deployment: str, queue: str | None, cycle: Cycle, settings: Settings, report: Reporter
) -> Path:
    """Folder of the finished stores. A run that still works is joined, a dead one replaced.

    Runs are numbered, so that asking again after a crash finds the run of the process that died.
    Raises ModelError with the last run's own words when every attempt failed.
    """
    failures: list[str] = []
    with connected() as client:
        where = find_deployment(client, deployment)
        for number in itertools.count():
            run = _asked(client, where, queue, cycle, settings, number)
            is_old = run.state is not None and run.state.is_final()
            run = _finished(client, run.id, report)
            if (folder := _result(run)) is not None:
                return folder
            if is_old:
                continue
            failures.append(_words(run))
            report.say(f"rollout run {number} of {cycle} ended: {failures[-1]}")
            if len(failures) == settings.attempts:
                break
    raise ModelError(
        f"{len(failures)} rollout runs failed, the last one: {failures[-1]}",
        where=f"cycle {cycle}",
        remedy="mosaic-ops canary on the GPU machine, then mosaic-ops run",
    )


def _asked(
    client: SyncPrefectClient,
    deployment: UUID,
    queue: str | None,
    cycle: Cycle,
    settings: Settings,
    number: int,
) -> FlowRun:
    """The run of that number: made now, or found."""
    shape = {
        "variant": settings.variant,
        "members": settings.members,
        "lead_hours": settings.lead_hours,
    }
    return client.create_flow_run_from_deployment(
        deployment,
        parameters={"cycle": cycle.label, **shape},
        work_queue_name=queue,
        name=f"rollout {cycle}",
        tags=[cycle_tag(cycle)],
        idempotency_key="/".join(map(str, ("rollout", cycle.id, *shape.values(), number))),
    )


def _result(run: FlowRun) -> Path | None:
    """The folder that a completed run left; None when it failed or the folder is gone."""
    if run.state is None or not run.state.is_completed():
        return None
    folder = Path(run.state.message or "")
    return folder if run.state.message and folder.is_dir() else None


def _words(run: FlowRun) -> str:
    assert run.state is not None, "a run that ended has a state"
    return f"{run.state.name} {run.state.message or ''}".strip()


def _finished(client: SyncPrefectClient, run: UUID, report: Reporter) -> FlowRun:
    """Wait for a run to end; say so when no worker takes it."""
    started, told = time.monotonic(), False
    while True:
        found = client.read_flow_run(run)
        if found.state is not None and found.state.is_final():
            return found
        waits = found.state is None or found.state.is_scheduled()
        if waits and not told and time.monotonic() - started > GRACE.total_seconds():
            report.say(f"no GPU worker has taken {found.name}: mosaic-ops workers")
            told = True
        time.sleep(POLL_SECONDS)
