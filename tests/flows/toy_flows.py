"""The deployed flows over toy stages: what the workers of the tests load."""

from __future__ import annotations

import datetime as dt
import os
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

sys.path.insert(0, str(Path(__file__).resolve().parent))
import toy_stages

sys.modules["flows.stages"] = toy_stages  # before anything imports the real ones
deployed = import_module("flows.orchestration.deployed")
Run = import_module("flows.watch.reconcile").Run
forecast, rollout, reconcile = deployed.forecast, deployed.rollout, deployed.reconcile
backfill, retention, canary = deployed.backfill, deployed.retention, deployed.canary
verify = deployed.verify


def simulated_now() -> dt.datetime:
    """The time in the file that TOY_CLOCK names, or the real one."""
    path = os.environ.get("TOY_CLOCK")
    if path is None:
        return dt.datetime.now(dt.UTC)
    return dt.datetime.fromisoformat(Path(path).read_text().strip())


def in_real_time(scheduled_time: dt.datetime) -> Any:
    """Prefect's own clock is the real one: a start on the simulated clock, moved to it."""
    wait = scheduled_time - simulated_now()
    return Scheduled(scheduled_time=dt.datetime.now(dt.UTC) + wait)


def due_on_the_simulated_clock(run: FlowRun) -> Any:
    """A run as a fact, due as long ago on the simulated clock as it is on the real one."""
    fact = as_fact(run)
    return replace(fact, due=fact.due + (simulated_now() - dt.datetime.now(dt.UTC)))


runs = import_module("flows.orchestration.runs")
as_fact = runs.as_fact
runs.as_fact = due_on_the_simulated_clock
runs.Scheduled = in_real_time
deployed.now = simulated_now
deployed.ingest_all = partial(deployed.ingest_all, scheduler="threads")  # fresh ones have no toys
import_module("flows.orchestration.gpu_stage").POLL_SECONDS = 0.3
silence = float(os.environ.get("TOY_SILENCE_SECONDS", "60"))
import_module("flows.orchestration.vigil").SILENCE_SECONDS = silence
import_module("flows.orchestration.backfill_runs").POLL_SECONDS = 0.3
grace = dt.timedelta(seconds=float(os.environ.get("TOY_GRACE_SECONDS", "300")))
for module in ("flows.watch.reconcile", "flows.orchestration.backfill_runs"):
    import_module(module).GRACE = grace
