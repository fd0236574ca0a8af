"""One forecast cycle, from the analysis on a mirror to the published Zarr, as one page.

Every stage validates what it takes, keeps what it made, and is safe to run again: a run killed
anywhere is finished by running the same cycle again, and a finished cycle is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows import stages
from flows.figures import FIGURE_NAMES, FIGURES
from flows.locks import cycle_lock
from flows.progress import Reporter
from flows.provenance import other_shape
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, SourceError
from postprocess.publish import published_cycle

INGEST_LOCKS = "ingest"

Run = Callable[..., Any]
"""How a stage is called: `plainly`, or as a Prefect task (flows.orchestration.tasks)."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cycle: `address` is its folder of stores; `made` says if by this run, and
    `why` if not."""

    cycle: Cycle
    address: str
    made: bool
    why: str = ""

    @property
    def figures(self) -> tuple[str, ...]:
        """Addresses of the figures that come with the run."""
        return tuple(f"{self.address}/{FIGURES}/{name}" for name in FIGURE_NAMES)


def plainly(stage: Callable[..., Any], *arguments: Any) -> Any:
    """Call a stage as the plain function it is."""
    return stage(*arguments)


def forecast_cycle(
    cycle: Cycle, settings: Settings, report: Reporter, run: Run = plainly, *, again: bool = False
) -> Outcome:
    """Bring `cycle` to publication and say where it is.

    With `again` also when it is published: the pointer goes to the more complete run (members and
    hours), of equals to the later. Raises CycleIsBusyError when another process works on the cycle,
    and the error of the stage that failed; what was finished before it stays and is not done again.
    """
    with cycle_lock(cycle, settings.locks):
        before = stages.published_address(cycle, settings)
        if before and not again:
            stages.settle(cycle, settings)
            return _left(cycle, before, _already(cycle, before, settings), report)

        stages.reference(settings)  # without weights there is no point in fetching anything
        obtain_history(cycle, settings, report, run)
        state = run(stages.initial_state, cycle, settings, report)
        staged = run(stages.rollout, cycle, state, settings, report)
        address = run(stages.publish, cycle, staged, settings, report)
        if before and address == before:
            return _left(cycle, before, f"computed again; {before} is at least as complete", report)
        return Outcome(cycle, address, made=True)


def _already(cycle: Cycle, address: str, settings: Settings) -> str:
    """That a cycle is published, and whether as it was asked for."""
    manifest = published_cycle(settings.published, cycle)
    other = other_shape(manifest, settings) if manifest else ""
    advice = (
        f" as {other}; with --again that is computed too, and readers get the more complete run, "
        "of equals the later"
    )
    return f"already published in {address}{advice if other else ': nothing to do'}"


def _left(cycle: Cycle, address: str, why: str, report: Reporter) -> Outcome:
    report.say(f"cycle {cycle} is {why}")
    return Outcome(cycle, address, made=False, why=why)


def obtain_history(cycle: Cycle, settings: Settings, report: Reporter, run: Run) -> None:
    """Archive every analysis that is missing; where none can be had, its stand-in, if allowed.

    The newest is never replaced: then the cycle before is the better start.
    """
    gaps: list[Cycle] = []
    for analysis in stages.missing_analyses(cycle, settings):
        try:
            ingest_analysis(analysis, settings, report, run)
        except (SourceError, DataError) as error:
            if analysis == cycle or len(gaps) == settings.forecast_fills:
                raise
            report.say(f"warning, no analysis of {analysis}: {error}")
            gaps.append(analysis)
    for gap in gaps:
        with cycle_lock(gap, settings.locks / INGEST_LOCKS, patient=True):
            run(stages.fill, gap, settings, report)


def ingest_analysis(
    analysis: Cycle, settings: Settings, report: Reporter, run: Run = plainly
) -> None:
    """Fetch, judge and archive one analysis.

    Cycles share analyses: whoever comes second waits for the first, and finds it archived.
    """
    with cycle_lock(analysis, settings.locks / INGEST_LOCKS, patient=True):
        if analysis in stages.missing_analyses(analysis, settings):
            _ingest_from_mirrors(analysis, settings, report, run)


def fetch_ahead(analysis: Cycle, settings: Settings, report: Reporter) -> None:
    """Have the messages of one analysis at hand before it is its turn to be judged."""
    with cycle_lock(analysis, settings.locks / INGEST_LOCKS, patient=True):
        if analysis in stages.missing_analyses(analysis, settings):
            source = stages.wait(analysis, settings, report)
            stages.fetch(analysis, source, settings, report)


def _ingest_from_mirrors(analysis: Cycle, settings: Settings, report: Reporter, run: Run) -> None:
    """The analysis from the first mirror that gives a sound one; those that fail are left out."""
    source = run(stages.wait, analysis, settings, report)
    try:
        folder = run(stages.fetch, analysis, source, settings, report)
        run(stages.archive, analysis, folder, settings, report)
    except (SourceError, DataError) as error:
        others = tuple(name for name in settings.mirrors if name != source)
        if not others or len(others) == len(settings.mirrors):
            raise
        report.say(f"warning, {analysis} from {source}: {error}")
        rest = settings.model_copy(update={"mirrors": others})
        _ingest_from_mirrors(analysis, rest, report, run)
