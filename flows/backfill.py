"""The work of a backfill: analyses first, each once, then the cycles that start from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from flows import stages
from flows.forecast import fetch_ahead, forecast_cycle, ingest_analysis
from flows.plan import Need, Plan, hindrance
from flows.progress import LogReporter, Reporter
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, MosaicOpsError

BATCHES_AHEAD = 4  # batches of so many per worker: progress is seen, no worker idles long


def ingest_all(
    needs: Sequence[Need],
    settings: Settings,
    report: Reporter,
    workers: int,
    scheduler: str = "processes",
) -> dict[Cycle, str]:
    """Fetch the analyses, `workers` at once, and archive them; what failed, with its reason.

    They are archived in the order of time, each after the one before: the gate judges an analysis
    by its change since then. They run as a Dask graph: in "processes" or "threads" of this machine,
    or on the cluster whose scheduler has the given address (its workers see the same data root).
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

    graph: list[Any] = []
    for need in batch:
        fetched = delayed(fetch_one)(need.analysis, settings)
        graph.append(delayed(ingest_one)(need.analysis, settings, fetched, *graph[-1:]))
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


def fetch_one(analysis: Cycle, settings: Settings) -> None:
    """Fetch one analysis unless it is archived. A failure shows when `ingest_one` tries again."""
    with suppress(MosaicOpsError, OSError):
        fetch_ahead(analysis, settings, LogReporter())


def ingest_one(analysis: Cycle, settings: Settings, *_after: object) -> str | None:
    """Archive one analysis unless it is archived, after others; the reason when that failed."""
    try:
        ingest_analysis(analysis, settings, LogReporter())
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
    """The cycles that cannot run because analyses of theirs failed, with the reason of one.

    Those that a stand-in may save are left to try.
    """
    found = {}
    for cycle in cycles:
        gaps = [each for each in stages.history(cycle, settings) if each in failures]
        if analysis := hindrance(cycle, gaps, settings.forecast_fills):
            found[cycle] = f"analysis {analysis}: {failures[analysis]}"
    return found


def summary_lines(plan: Plan, failures: dict[Cycle, str]) -> list[str]:
    """What became of a backfill, and the command for each cycle that failed."""
    done = len(plan.cycles) - len(failures)
    lines = [f"{done} of {len(plan.cycles)} cycles published, {len(failures)} failed"]
    lines += [f"{cycle}: {why}\n  retry: mosaic-ops run {cycle}" for cycle, why in failures.items()]
    return lines + [f"{cycle}: not run, {why}" for cycle, why in plan.holes.items()]
