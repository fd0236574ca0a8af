"""When somebody must be told: pure conditions on the state of the cycles and the machine."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flows.settings import Settings
from flows.timetable import age_hours
from flows.watch.alerts import Alert, sender, update_alerts
from flows.watch.reconcile import Attendance, Verdict
from flows.watch.status import Row
from ingest.gate.verdict import Outcome, told
from ingest.gate.verdict import Verdict as GateVerdict
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from postprocess.publish import published_cycle, read_pointer

RECONCILED_KINDS = (
    "failed", "late", "source", "refused", "warned", "members", "disk", "worker", "store",
)  # fmt: skip
"""Kinds that the reconciler raises and ends."""

DEADMAN = "deadman"
DEADMAN_HOURS = 16.0
"""Age of the newest published cycle that is too much: published at T+8 h, a cycle is 14 h old
when the next one comes."""

_GIGABYTE = 1e9
_TOLD_MEMBERS = 3


@dataclass(frozen=True)
class Seen:
    """What a pass saw: the cycles, newest first, and what was decided about them; who is at the
    pools; what the gate said of the analyses."""

    table: Sequence[Row]
    verdict: Verdict
    served: Sequence[Attendance] = ()
    judged: Mapping[Cycle, GateVerdict] = field(default_factory=dict)


def conditions(seen: Seen, settings: Settings, now: dt.datetime) -> Iterator[Alert]:
    """Everything that holds now."""
    for row in seen.table:
        recent = age_hours(row.cycle, now) <= settings.catchup_hours
        if row.state == "published" and recent:
            yield from _missing_members(row, settings)
            yield from _doubtful(row.cycle, seen.judged.get(row.cycle))
        elif row.state not in {"published", "expired", "unreachable"}:
            yield from _unpublished(row, row.cycle in seen.verdict.given_up, settings, now)
    yield from _unreachable(seen.table, settings)
    yield from _unserved(seen.verdict, seen.served)
    yield from _disk(settings)


def _unpublished(row: Row, given_up: bool, settings: Settings, now: dt.datetime) -> Iterator[Alert]:
    cycle, failure = row.cycle.label, row.failure
    command = f"{settings.gpu_command} run {cycle}"
    cause = " ".join((failure.reason or "").split()) if failure else "no stage has failed"
    stage = failure.stage if failure else None
    if given_up:
        yield Alert(
            kind="failed",
            subject=cycle,
            stage=stage,
            cause=f"{settings.attempts} runs failed. {cause}",
            command=command,
        )
    if age_hours(row.cycle, now) > settings.deadline_hours:
        yield Alert(
            kind="late",
            subject=cycle,
            stage=stage,
            cause=f"not published by T+{settings.deadline_hours:g} h ({row.state}). {cause}",
            command="mosaic-ops status",
        )
    if failure and failure.stage == "wait":
        yield Alert(kind="source", subject=cycle, stage="wait", cause=cause, command=command)
    if failure and failure.stage == "gate":
        yield Alert(kind="refused", subject=cycle, stage="gate", cause=cause, command=command)


def _unreachable(table: Sequence[Row], settings: Settings) -> Iterator[Alert]:
    """Cycles of which the published root does not tell whether they are there, as one alert."""
    silent = [row for row in table if row.state == "unreachable"]
    if silent:
        yield Alert(
            kind="store",
            subject="published",
            cause=f"{len(silent)} cycles cannot be looked up in {settings.published}, the newest "
            f"{silent[0].cycle}: {' '.join(silent[0].damaged[-1].split())}",
            command="mosaic-ops verify-store",
        )


def _missing_members(row: Row, settings: Settings) -> Iterator[Alert]:
    """A publication with sick or missing members."""
    manifest = published_cycle(settings.published, row.cycle)
    if manifest is not None and (healthy := manifest.healthy_members) < settings.members:
        count = f"{healthy} of {settings.members} members are published healthy"
        yield Alert(
            kind="members",
            subject=row.cycle.label,
            stage="rollout",
            cause="; ".join([count, *manifest.sick_members[:_TOLD_MEMBERS]]),
            command=f"{settings.gpu_command} canary",
        )


def _doubtful(cycle: Cycle, judged: GateVerdict | None) -> Iterator[Alert]:
    """A publication from an analysis that the gate let pass with a warning."""
    warnings = judged.of(Outcome.WARN) if judged else ()
    if warnings:
        yield Alert(
            kind="warned",
            subject=cycle.label,
            stage="gate",
            cause="; ".join(map(told, warnings)),
            command=f"mosaic-ops gate {cycle}",
        )


def _unserved(verdict: Verdict, served: Sequence[Attendance]) -> Iterator[Alert]:
    """Pools without a worker; runs that nobody takes although every pool has one."""
    missed = [each for each in served if each.is_missed]
    for each in missed:
        yield Alert(
            kind="worker",
            subject=each.pool,
            cause=f"pool {each.pool} has no worker (the last was {each.last or 'never there'}); "
            f"runs waiting: {each.waiting}",
            command="mosaic-ops workers",
        )
    if verdict.unserved and not missed:
        cycles = ", ".join(sorted({run.cycle.label for run in verdict.unserved}))
        yield Alert(
            kind="worker",
            subject="pool",
            cause=f"no worker has taken the runs of {cycles}",
            command="mosaic-ops workers",
        )


def _disk(settings: Settings) -> Iterator[Alert]:
    settings.data_root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.data_root).free / _GIGABYTE
    if free < settings.minimum_free_gb:
        yield Alert(
            kind="disk",
            subject=settings.data_root.name,
            cause=f"{free:.1f} GB are free beside {settings.data_root}, "
            f"{settings.minimum_free_gb:g} GB are wanted",
            command="mosaic-ops retain",
        )


def check_alive(settings: Settings, now: dt.datetime, hours: float = DEADMAN_HOURS) -> Cycle:
    """The newest published cycle, read from the store alone.

    Raises PublishError when there is none, or its initial time is more than `hours` ago.
    """
    pointer = read_pointer(settings.published)
    if pointer is None:
        raise PublishError(
            "no cycle is published", where=settings.published, remedy="mosaic-ops status"
        )
    newest = Cycle.parse(pointer.cycle)
    age = age_hours(newest, now)
    if age > hours:
        raise PublishError(
            f"the newest published cycle is {newest}, {age:.1f} h old; {hours:g} h are allowed",
            where=settings.published,
            remedy="mosaic-ops status; mosaic-ops workers",
        )
    return newest


def check_or_tell(
    settings: Settings, now: dt.datetime, hours: float, *, send: bool = True
) -> Cycle:
    """check_alive, with an alert while it fails and its end when it is well again."""
    try:
        newest = check_alive(settings, now, hours)
    except PublishError as error:
        if send:
            alert = Alert(
                kind=DEADMAN, subject="publication", cause=error.what, command="mosaic-ops status"
            )
            update_alerts([alert], settings.alerts, now, sender(settings), [DEADMAN])
        raise
    if send:
        update_alerts([], settings.alerts, now, sender(settings), [DEADMAN])
    return newest
