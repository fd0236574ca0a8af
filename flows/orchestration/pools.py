"""Work pools and queues: which runs wait for which machines, and who goes first."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter, WorkPoolFilterName
from prefect.exceptions import ObjectNotFound

from flows.watch.reconcile import Attendance
from mosaic_core.contract.errors import InputError, MosaicOpsError

LIVE_RUNS = 8
"""Live cycles at once: all that come in the 48 h in which a cycle is of use can stand in line for
a GPU that is away."""

OPERATIONS_RUNS = 4
"""Room that neither they nor a backfill's cycles take: the reconciler and the alerts go on."""

WORKERS = {
    "process": ("prefect.workers.process", "ProcessWorker", "prefect"),
    "docker": ("prefect_docker.worker", "DockerWorker", "prefect-docker"),
    "kubernetes": ("prefect_kubernetes.worker", "KubernetesWorker", "prefect-kubernetes"),
}
"""Pool type -> module, class, and the distribution that has it."""


@dataclass(frozen=True)
class Queue:
    """Lower priorities go first; `limit` bounds the queue's runs at once (None: the pool's)."""

    name: str
    priority: int
    limit: int | None = None


@dataclass(frozen=True)
class Pool:
    """`limit` runs at once over all queues."""

    name: str
    description: str
    limit: int
    queues: tuple[Queue, ...]


def pools(gpus: int) -> tuple[Pool, ...]:
    """The two pools of an installation with `gpus` GPUs: one rollout a GPU, live runs first.

    With several GPUs a backfill leaves one of them to the live cycle; on the CPU pool it has a
    run for each, and never less than two: one fetches or publishes while the other computes.
    """
    backfills = max(2, gpus)
    return (
        Pool(
            "cpu",
            "Waiting, fetching, archiving, publishing; the operations.",
            LIVE_RUNS + OPERATIONS_RUNS + backfills,
            (Queue("live", 1, LIVE_RUNS), Queue("operations", 2), Queue("backfill", 10, backfills)),
        ),
        Pool(
            "gpu",
            "Rollouts, one a GPU.",
            gpus,
            (Queue("live", 1), Queue("backfill", 10, max(1, gpus - 1))),
        ),
    )


def apply_pools(client: SyncPrefectClient, kind: str, gpus: int | None = None) -> tuple[Pool, ...]:
    """Create the pools and queues, or bring those there are to the table; the table.

    Without `gpus` the GPU pool keeps the number that it has, and begins with one. InputError when
    a pool of another type is there, or `kind` is not installed.
    """
    template = _job_template(kind)
    wanted = pools(gpus or _gpus_so_far(client))
    for pool in wanted:
        _apply_pool(client, pool, kind, template)
        for queue in pool.queues:
            _apply_queue(client, pool.name, queue)
    return wanted


def _gpus_so_far(client: SyncPrefectClient) -> int:
    try:
        return client.read_work_pool("gpu").concurrency_limit or 1
    except ObjectNotFound:
        return 1


def _apply_pool(client: SyncPrefectClient, pool: Pool, kind: str, template: dict[str, Any]) -> None:
    try:
        there = client.read_work_pool(pool.name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=pool.name,
                description=pool.description,
                type=kind,
                base_job_template=template,
                concurrency_limit=pool.limit,
            )
        )
        return
    if there.type != kind:
        raise InputError(
            f"work pool {pool.name} is of type {there.type}, not {kind}",
            remedy=f"keep --pool-type {there.type}, or delete it: prefect work-pool delete "
            f"{pool.name}",
        )
    client.update_work_pool(pool.name, WorkPoolUpdate(concurrency_limit=pool.limit))


def _apply_queue(client: SyncPrefectClient, pool: str, queue: Queue) -> None:
    try:
        there = client.read_work_queue_by_name(queue.name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(
            queue.name,
            concurrency_limit=queue.limit,
            priority=queue.priority,
            work_pool_name=pool,
        )
        return
    client.update_work_queue(there.id, priority=queue.priority, concurrency_limit=queue.limit)


def _job_template(kind: str) -> dict[str, Any]:
    if kind not in WORKERS:
        raise InputError(f"unknown pool type {kind!r}", remedy=f"one of {', '.join(WORKERS)}")
    module, worker, distribution = WORKERS[kind]
    try:
        template: dict[str, Any] = getattr(
            import_module(module), worker
        ).get_default_base_job_template()
    except ImportError:
        raise InputError(
            f"workers of type {kind} are not installed", remedy=f"pip install {distribution}"
        ) from None
    return template


def apply_deployments(file: Path) -> str:
    """Register the deployments of a prefect.yaml; what Prefect said about them.

    MosaicOpsError with Prefect's own words when it refuses.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [*command, "--prefect-file", file.name],
        cwd=file.parent,
        env={**os.environ, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MosaicOpsError(
            f"Prefect refused the deployments:\n{_tail(done.stdout + done.stderr)}",
            where=str(file),
            remedy="correct the file; what was registered before stays",
        )
    return done.stdout


def _tail(text: str) -> str:
    """What Prefect said last, from the error on when it ended with a traceback."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if _ERROR.match(line)]
    return "\n".join(lines[errors[-1] if errors else -12 :])


_ERROR = re.compile(r"[\w.]+(Error|Exception|NotFound)\b")


def attendance(client: SyncPrefectClient, now: dt.datetime) -> Iterator[Attendance]:
    """Who serves each pool of ours; MosaicOpsError when the server does not have the pools."""
    for pool in pools(gpus=1):
        try:
            client.read_work_pool(pool.name)
        except ObjectNotFound:
            raise MosaicOpsError(
                f"the server has no work pool {pool.name}", remedy="mosaic-ops deploy"
            ) from None
        there = workers_of(client, pool.name)
        overdue = _overdue(client, pool.name, now)
        yield Attendance(pool.name, there.online, there.last, overdue)


@dataclass(frozen=True)
class Workers:
    """Names of a pool's workers that are there, and of the one that was heard last."""

    online: tuple[str, ...]
    last: str | None


def workers_of(client: SyncPrefectClient, pool: str) -> Workers:
    """Prefect counts a worker as gone after three heartbeats, 90 s."""
    known = client.read_workers_for_work_pool(pool)
    heard = sorted(known, key=lambda worker: worker.last_heartbeat_time or _NEVER)
    online = tuple(worker.name for worker in known if worker.status == "ONLINE")
    return Workers(online, heard[-1].name if heard else None)


_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)


def _overdue(client: SyncPrefectClient, pool: str, now: dt.datetime) -> int:
    """How many runs of a pool should have been taken by `now`."""
    overdue = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "next_scheduled_start_time": {"before_": now},
        }
    )
    here = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    return len(client.read_flow_runs(flow_run_filter=overdue, work_pool_filter=here))
