"""What became of every cycle, from the stores, the receipts and the locks: never from Prefect."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.locks import is_worked_on
from flows.receipts import Receipt
from flows.settings import Settings
from flows.timetable import age_hours, due_cycles
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from postprocess.objects.root import MUTABLE, UnreachableError, open_root

STAGES = {
    "wait": "available",
    "fetch": "fetched",
    "gate": "checked",
    "archive": "archived",
    "initial_state": "history",
    "rollout": "rolled out",
    "products": "products",
    "publish": "published",
}
"""Stage -> what has happened once it is done, in the order of the cycle."""

FORECAST_STAGES = {"initial_state", "rollout", "products", "publish"}
WINDOW_CYCLES = 30
STATUS = "status.json"

State = Literal["published", "working", "interrupted", "failed", "due", "expired", "unreachable"]
Published = Callable[[Cycle, Settings], str | None]


@dataclass(frozen=True)
class Row:
    """One cycle: its state, the last attempt of each stage, where it is published.

    interrupted: a stage began and no process works on the cycle; due: nothing has begun;
    expired: not published and older than what the reconciler makes up for; unreachable: the
    published root does not tell whether it is published (`damaged` says why).
    """

    cycle: Cycle
    state: State
    receipts: dict[str, Receipt]
    damaged: tuple[str, ...]
    address: str | None

    @property
    def was_begun(self) -> bool:
        """Whether a forecast of it was tried; an analysis that another cycle needed is not one."""
        return self.address is not None or not FORECAST_STAGES.isdisjoint(self.receipts)

    @property
    def failure(self) -> Receipt | None:
        """The stage that failed last, if the last thing that happened was a failure."""
        last = max(self.receipts.values(), key=lambda receipt: receipt.started, default=None)
        return last if last is not None and last.status == "failed" else None

    def hours_to(self, stage: str) -> float | None:
        """Hours from the initial time until `stage` was done; None before that."""
        receipt = self.receipts.get(stage)
        if receipt is None or receipt.status != "done" or receipt.finished is None:
            return None
        return age_hours(self.cycle, receipt.finished)

    @property
    def latency_hours(self) -> float | None:
        """Hours from the initial time until the cycle was visible."""
        return self.hours_to("publish") if self.address else None


@dataclass(frozen=True)
class Freshness:
    """How soon the cycles of the window were visible, in hours after the initial time.

    `met` of `due` cycles were visible by the objective; cycles not published count as missed once
    they are older than it, and not at all before.
    """

    objective_hours: float
    due: int
    met: int
    p50_hours: float | None
    p95_hours: float | None
    stages: dict[str, tuple[float, float]]


def published_by_stages(cycle: Cycle, settings: Settings) -> str | None:
    """Where the cycle is published, as its stages see it."""
    from flows import stages  # loads the science stack

    return stages.published_address(cycle, settings)


def rows(
    settings: Settings,
    now: dt.datetime,
    *,
    count: int = WINDOW_CYCLES,
    published: Published = published_by_stages,
) -> tuple[Row, ...]:
    """The last `count` due cycles, newest first."""
    cycles = due_cycles(now, horizon_hours=6.0 * count)[:count]
    return tuple(row(cycle, settings, now, published) for cycle in cycles)


def row(
    cycle: Cycle, settings: Settings, now: dt.datetime, published: Published = published_by_stages
) -> Row:
    """One cycle as its files tell it."""
    receipts, damaged = _receipts(cycle, settings.receipts)
    try:
        address = published(cycle, settings)
    except UnreachableError as error:
        state: State = "working" if is_worked_on(cycle, settings.locks) else "unreachable"
        return Row(cycle, state, receipts, (*damaged, str(error)), None)
    state = _state(cycle, receipts, address, settings, now)
    return Row(cycle, state, receipts, damaged, address)


def _receipts(cycle: Cycle, folder: Path) -> tuple[dict[str, Receipt], tuple[str, ...]]:
    """Readable receipts by stage, and what is wrong with the others."""
    good: dict[str, Receipt] = {}
    damaged = []
    for path in sorted((folder / cycle.id).glob("*.json")):
        try:
            good[path.stem] = Receipt.read(path)
        except DataError as error:
            damaged.append(str(error))
    return good, tuple(damaged)


def _state(
    cycle: Cycle,
    receipts: dict[str, Receipt],
    address: str | None,
    settings: Settings,
    now: dt.datetime,
) -> State:
    if address is not None:
        return "published"
    if is_worked_on(cycle, settings.locks):
        return "working"
    if age_hours(cycle, now) > settings.catchup_hours:
        return "expired"
    states = {receipt.status for receipt in receipts.values()}
    if "running" in states:
        return "interrupted"
    return "failed" if "failed" in states else "due"


def freshness(table: Sequence[Row], objective_hours: float, now: dt.datetime) -> Freshness:
    """Latency figures of the rows (newest first), from the first forecast that was begun."""
    known = [index for index, each in enumerate(table) if each.was_begun]
    since = table[: known[-1] + 1] if known else ()
    counted = [row for row in since if row.address or age_hours(row.cycle, now) >= objective_hours]
    latencies = [row.latency_hours for row in counted if row.latency_hours is not None]
    spread = percentiles(latencies)
    return Freshness(
        objective_hours=objective_hours,
        due=len(counted),
        met=sum(hours <= objective_hours for hours in latencies),
        p50_hours=spread[0] if spread else None,
        p95_hours=spread[1] if spread else None,
        stages=_stage_hours(counted),
    )


def _stage_hours(table: Iterable[Row]) -> dict[str, tuple[float, float]]:
    """p50 and p95 of the hours from the initial time to the end of each stage."""
    done = [each for each in table if each.latency_hours is not None]
    hours = {stage: [row.hours_to(stage) for row in done] for stage in STAGES}
    spreads = {
        stage: percentiles([value for value in values if value is not None])
        for stage, values in hours.items()
    }
    return {stage: spread for stage, spread in spreads.items() if spread}


def percentiles(values: Sequence[float]) -> tuple[float, float] | None:
    """The 50th and 95th percentile by nearest rank (the smallest value with that share below)."""
    if not values:
        return None
    ordered = sorted(values)
    return tuple(  # type: ignore[return-value]
        ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 95)
    )


def as_json(table: Sequence[Row], figures: Freshness, now: dt.datetime) -> dict[str, Any]:
    """The status page's data: schema 1, times in UTC ISO 8601, hours after the initial time.

    `waterfall_hours` of a cycle says when each stage was done.
    """
    return {
        "schema_version": 1,
        "updated": now.isoformat(),
        "freshness": {
            "objective_hours": figures.objective_hours,
            "cycles_due": figures.due,
            "cycles_met": figures.met,
            "p50_hours": figures.p50_hours,
            "p95_hours": figures.p95_hours,
            "stage_hours_p50_p95": {key: list(pair) for key, pair in figures.stages.items()},
        },
        "cycles": [_row_json(row) for row in table],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "cycle": row.cycle.label,
        "state": row.state,
        "latency_hours": row.latency_hours,
        "damaged": list(row.damaged),
        "waterfall_hours": {
            stage: hours for stage in STAGES if (hours := row.hours_to(stage)) is not None
        },
        "stages": {
            stage: receipt.model_dump(mode="json", exclude={"cycle", "stage"})
            for stage, receipt in row.receipts.items()
        },
    }


def write_status(
    settings: Settings, now: dt.datetime, table: Sequence[Row], figures: Freshness
) -> None:
    """Leave `status.json` beside the catalogue."""
    content = json.dumps(as_json(table, figures, now), indent=1, ensure_ascii=False)
    open_root(settings.published).write(STATUS, content.encode(), cache=MUTABLE)
