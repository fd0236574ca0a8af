"""Many past cycles: what it takes, worked out before anything is fetched, and the ingest of it.

A plan is made from the stores as they are, so the same command goes on where an interrupted one
stopped: published cycles and archived analyses are not planned again.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flows import stages
from flows.forecast import forecast_cycle
from flows.locks import CycleIsBusyError, cycle_lock
from flows.progress import LogReporter, Reporter
from flows.receipts import Receipt
from flows.settings import Settings
from flows.timetable import CYCLE_STEP_HOURS, due_cycle
from flows.watch.status_text import duration
from ingest.sources import Source, analysis_files
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, MosaicOpsError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS

ANALYSIS_BYTES = 65_400_000  # 82 messages in 20 ranges, and what lies between them
FIELD_BYTES = 4 * len(CHANNELS) * LATITUDE.size * LONGITUDE.size
STORED_SHARE = 0.33  # of float32, after rounding and compression
MEMBER_STEP_SECONDS = 0.045  # one H100, hres; until this installation has measured its own
MEASURED_RUNS = 30
BATCHES_AHEAD = 4  # batches of so many per worker: progress is seen, no worker idles long
LIMIT_CYCLES = 4 * 366


@dataclass(frozen=True)
class Need:
    """An analysis that cycles of the plan start from. `origin`: the archive or a mirror's name;
    None when nothing has it, then `why` says what each mirror lacks."""

    analysis: Cycle
    origin: str | None
    why: str = ""

    @property
    def is_archived(self) -> bool:
        """Nothing is to be fetched."""
        return self.origin == "archive"


@dataclass(frozen=True)
class Plan:
    """What a backfill will do. `holes` are cycles that cannot be run, with the reason."""

    cycles: tuple[Cycle, ...]
    published: tuple[Cycle, ...]
    holes: dict[Cycle, str]
    needs: tuple[Need, ...]
    fetch_bytes: int
    gpu_seconds: float
    stored_bytes: int
    rate_is_measured: bool

    @property
    def to_fetch(self) -> tuple[Need, ...]:
        """Analyses to fetch, each once however many cycles share it, oldest first."""
        return tuple(need for need in self.needs if not need.is_archived)


def window(first: Cycle, last: Cycle, every_hours: int, now: dt.datetime) -> tuple[Cycle, ...]:
    """The cycles from `first` to `last`, oldest first.

    InputError for an empty, a future or an absurdly long window and for a spacing that is not a
    multiple of 6 h.
    """
    if every_hours < CYCLE_STEP_HOURS or every_hours % CYCLE_STEP_HOURS:
        raise InputError(f"{every_hours} h is not a multiple of 6 h", remedy="--every 6h or 24h")
    if last < first:
        raise InputError(f"the window ends ({last}) before it begins ({first})")
    if last > due_cycle(now):
        raise InputError(
            f"{last} is not due yet", remedy=f"end the window at {due_cycle(now)} or before"
        )
    count = int((last.datetime - first.datetime).total_seconds() // 3600) // every_hours + 1
    if count > LIMIT_CYCLES:
        raise InputError(
            f"{count} cycles are more than a year of them", remedy="backfill year by year"
        )
    return tuple(first.shift(every_hours * place) for place in range(count))


def make_plan(cycles: Sequence[Cycle], settings: Settings, now: dt.datetime) -> Plan:
    """What is left to do for `cycles`, from the stores as they are."""
    done = {cycle for cycle in cycles if stages.published_address(cycle, settings)}
    wanted = [cycle for cycle in cycles if cycle not in done]
    histories = {cycle: stages.history(cycle, settings) for cycle in wanted}
    needed = sorted({analysis for history in histories.values() for analysis in history})
    missing = {each for cycle in wanted for each in stages.missing_analyses(cycle, settings)}
    found = {analysis: _need(analysis, missing, settings, now) for analysis in needed}
    holes = dict(_holes(histories, found))
    runnable = tuple(cycle for cycle in wanted if cycle not in holes)
    used = sorted({analysis for cycle in runnable for analysis in histories[cycle]})
    needs = tuple(found[analysis] for analysis in used)
    fetched = sum(not need.is_archived for need in needs)
    rate = measured_rate(settings)
    steps = settings.members * settings.steps
    kept = settings.members * (settings.steps + 1) * STORED_SHARE
    return Plan(
        cycles=runnable,
        published=tuple(sorted(done)),
        holes=holes,
        needs=needs,
        fetch_bytes=fetched * ANALYSIS_BYTES,
        gpu_seconds=len(runnable) * steps * (rate or MEMBER_STEP_SECONDS),
        stored_bytes=int(len(runnable) * kept * FIELD_BYTES) + fetched * FIELD_BYTES,
        rate_is_measured=rate is not None,
    )


def _need(analysis: Cycle, missing: set[Cycle], settings: Settings, now: dt.datetime) -> Need:
    if analysis not in missing:
        return Need(analysis, "archive")
    refusals = []
    for name in settings.mirrors:
        refusal = _refusal(analysis, stages.mirror(name), now)
        if refusal is None:
            return Need(analysis, name)
        refusals.append(f"{name}: {refusal}")
    return Need(analysis, None, "; ".join(refusals))


def _refusal(analysis: Cycle, source: Source, now: dt.datetime) -> str | None:
    """Why a mirror cannot have an analysis; None when it should."""
    hours = (now - analysis.datetime).total_seconds() / 3600
    if source.keep_hours is not None and hours > source.keep_hours:
        return f"keeps {source.keep_hours} h only"
    try:
        analysis_files(analysis, source)
    except MosaicOpsError as error:
        return error.what
    return None


def _holes(
    histories: dict[Cycle, tuple[Cycle, ...]], found: dict[Cycle, Need]
) -> Iterator[tuple[Cycle, str]]:
    for cycle, history in histories.items():
        missing = [found[analysis] for analysis in history if found[analysis].origin is None]
        if missing:
            yield cycle, f"no source has the analysis of {missing[0].analysis} ({missing[0].why})"


def measured_rate(settings: Settings) -> float | None:
    """GPU-seconds per member and step of this installation's last rollouts; None before any."""
    paths = sorted(settings.receipts.glob("*/rollout.json"))[-MEASURED_RUNS:]
    seconds = [found for path in paths if (found := _seconds(Receipt.read(path))) is not None]
    if not seconds:
        return None
    return statistics.median(seconds) / (settings.members * settings.steps)


def _seconds(receipt: Receipt) -> float | None:
    if receipt.status != "done" or receipt.finished is None:
        return None
    return (receipt.finished - receipt.started).total_seconds()


def plan_lines(plan: Plan) -> list[str]:
    """The plan for people, one fact a line."""
    origins: dict[str, int] = {}
    for need in plan.needs:
        origins[need.origin or "none"] = origins.get(need.origin or "none", 0) + 1
    told = ", ".join(f"{count} from {origin}" for origin, count in sorted(origins.items()))
    rate = "measured here" if plan.rate_is_measured else "one H100, not measured here yet"
    lines = [
        f"{len(plan.cycles)} cycles to run"
        + (f", {plan.cycles[0]} to {plan.cycles[-1]}" if plan.cycles else ""),
        f"{len(plan.published)} are published already",
        f"{len(plan.needs)} analyses, each used by every cycle that needs it: {told or 'none'}",
        f"{len(plan.to_fetch)} to fetch, {plan.fetch_bytes / 1e9:.2f} GB",
        f"{duration(plan.gpu_seconds)} of GPU ({rate})",
        f"{plan.stored_bytes / 1e9:.2f} GB to store",
    ]
    return lines + [f"hole {cycle}: {why}" for cycle, why in plan.holes.items()]


def ingest_all(
    needs: Sequence[Need],
    settings: Settings,
    report: Reporter,
    workers: int,
    scheduler: str = "processes",
) -> dict[Cycle, str]:
    """Fetch and archive the analyses, `workers` at once; what failed, with its reason.

    They run as a Dask graph: in "processes" or "threads" of this machine, or on the cluster whose
    scheduler has the given address (its workers see the same data root).
    """
    failures: dict[Cycle, str] = {}
    size = BATCHES_AHEAD * workers
    with report.stage(f"ingest of {len(needs)} analyses") as advance:
        for start in range(0, len(needs), size):
            batch = needs[start : start + size]
            for need, failure in zip(
                batch, _computed(batch, settings, workers, scheduler), strict=True
            ):
                if failure:
                    failures[need.analysis] = failure
                    report.say(f"analysis {need.analysis}: {failure}")
            advance(start + len(batch), len(needs), f"{len(failures)} failed")
    return failures


def _computed(
    batch: Iterable[Need], settings: Settings, workers: int, scheduler: str
) -> Sequence[str | None]:
    from dask.base import compute
    from dask.delayed import delayed

    graph = [delayed(ingest_one)(need.analysis, settings) for need in batch]
    if "://" not in scheduler:
        answers: Sequence[str | None] = compute(  # type: ignore[no-untyped-call]
            *graph, scheduler=scheduler, num_workers=workers
        )
        return answers
    with _client(scheduler) as client:
        gathered: Sequence[str | None] = client.gather(client.compute(graph))
        return gathered


def _client(address: str) -> Any:
    """A client of the cluster's scheduler; InputError when there is none."""
    try:
        cluster: Any = import_module("distributed")
    except ImportError:
        raise InputError(
            "the Dask client for clusters is not installed", remedy="pip install distributed"
        ) from None
    try:
        return cluster.Client(address, timeout="10s")
    except OSError as error:
        raise InputError(
            f"no Dask scheduler answers: {error}", where=address, remedy="check the address"
        ) from None


def ingest_one(analysis: Cycle, settings: Settings) -> str | None:
    """Fetch and archive one analysis unless it is archived; the reason when that failed."""
    report = LogReporter()
    try:
        with cycle_lock(analysis, settings.locks / "ingest"):
            if analysis not in stages.missing_analyses(analysis, settings):
                return None
            source = stages.wait(analysis, settings, report)
            folder = stages.fetch(analysis, source, settings, report)
            stages.archive(analysis, folder, settings, report)
    except CycleIsBusyError:
        return "another process is fetching it"
    except (MosaicOpsError, OSError) as error:
        return " ".join(str(error).split())
    return None


def run_here(
    plan: Plan, settings: Settings, report: Reporter, skip: dict[Cycle, str]
) -> dict[Cycle, str]:
    """Run the plan's cycles one after the other in this process; those that failed, and why."""
    failures = dict(skip)
    with report.stage(f"backfill of {len(plan.cycles)} cycles") as advance:
        for place, cycle in enumerate(plan.cycles):
            if cycle not in skip:
                try:
                    forecast_cycle(cycle, settings, LogReporter())
                except (MosaicOpsError, OSError) as error:
                    failures[cycle] = " ".join(str(error).split())
                    report.say(f"cycle {cycle}: {failures[cycle]}")
            advance(place + 1, len(plan.cycles), f"{len(failures)} failed")
    return failures


def failed_histories(
    cycles: Sequence[Cycle], failures: dict[Cycle, str], settings: Settings
) -> dict[Cycle, str]:
    """The cycles that cannot run because an analysis of theirs failed, with its reason."""
    return {
        cycle: f"analysis {analysis}: {failures[analysis]}"
        for cycle in cycles
        for analysis in stages.history(cycle, settings)
        if analysis in failures
    }


def summary_lines(plan: Plan, failures: dict[Cycle, str]) -> list[str]:
    """What became of a backfill, and the command for each cycle that failed."""
    done = len(plan.cycles) - len(failures)
    lines = [f"{done} of {len(plan.cycles)} cycles published, {len(failures)} failed"]
    lines += [f"{cycle}: {why}\n  retry: mosaic-ops run {cycle}" for cycle, why in failures.items()]
    return lines + [f"{cycle}: not run, {why}" for cycle, why in plan.holes.items()]


def every_hours(text: str) -> int:
    """Hours in '6h' or '24h'; InputError for anything else."""
    digits = text.removesuffix("h")
    if not digits.isdigit():
        raise InputError(f"cannot read {text!r} as hours", remedy="write it like 6h or 24h")
    return int(digits)
