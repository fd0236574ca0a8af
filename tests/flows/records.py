"""Receipts, rows and runs for tests of what the operations decide."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.receipts import Receipt, Status
from flows.settings import Settings
from flows.watch.reconcile import Run
from flows.watch.status import Row, State
from mosaic_core.contract.cycle import Cycle
from postprocess.manifest import Manifest, digest, run_path
from postprocess.objects.root import MUTABLE, open_root
from postprocess.pointer import LATEST, advance, current_key

NOW = dt.datetime(2026, 11, 23, 7, 0, tzinfo=dt.UTC)
NEWEST = Cycle.parse("2026-11-23T00Z")


def receipt(
    cycle: Cycle, stage: str, begin_hours: float, seconds: float | None, **facts: Any
) -> Receipt:
    """A receipt that began `begin_hours` after the initial time; `seconds` None: still running."""
    started = cycle.datetime + dt.timedelta(hours=begin_hours)
    status: Status = facts.pop("status", "running" if seconds is None else "done")
    finished = None if seconds is None else started + dt.timedelta(seconds=seconds)
    known = {"host": "box", "process": 1, **facts}
    return Receipt(
        cycle=cycle.id, stage=stage, status=status, started=started, finished=finished, **known
    )


def history(cycle: Cycle, folder: Path, visible_hours: float) -> None:
    """All receipts of a cycle that was visible `visible_hours` after its initial time."""
    hours = {
        "wait": 6.7, "fetch": 6.8, "gate": 6.85, "archive": 6.9, "initial_state": 6.95,
        "rollout": 7.0,
    }  # fmt: skip
    for stage, begin in hours.items():
        receipt(cycle, stage, begin, 60).write(folder)
    receipt(cycle, "publish", visible_hours - 0.05, 180).write(folder)


def row(cycle: Cycle, state: State, *receipts: Receipt) -> Row:
    """A row of the table."""
    address = f"published/{cycle.id}" if state == "published" else None
    return Row(cycle, state, {each.stage: each for each in receipts}, (), address)


def run(
    cycle: Cycle, state: str, minutes_ago: float, number: int = 1, label: str = ""
) -> Run:  # fmt: skip
    """A run that came into `state`, named `label`, so many minutes before NOW."""
    since = NOW - dt.timedelta(minutes=minutes_ago)
    name = f"forecast {cycle}"
    return Run(f"{cycle.id}-{number}", cycle, state, name, since, since, label=label)


def settings(folder: Path, **changes: Any) -> Settings:
    """Settings of a small installation in `folder`."""
    facts = {"variant": "mini", "members": 4, "lead_hours": 24, "minimum_free_gb": 0, **changes}
    return Settings(data_root=folder, **facts)


def publish(root: str, cycle: Cycle, members: int, sick: Sequence[str] = ()) -> None:
    """The pointer and manifest of a cycle of 24 h, without its stores.

    `sick` has a line for each of the members that was quarantined.
    """
    manifest = Manifest(
        cycle=cycle.id, run_id="r1", path=run_path(cycle, "r1"), members=members, lead_hours=24,
        created_at=NOW, provenance={"member_health": list(sick)}, objects=(),
    )  # fmt: skip
    store = open_root(root)
    store.write(f"{manifest.path}/manifest.json", manifest.to_bytes(), cache=MUTABLE)
    for key in (current_key(cycle), LATEST):
        advance(store, key, manifest, digest(manifest.to_bytes()))
