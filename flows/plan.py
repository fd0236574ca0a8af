"""The plan of a backfill: what it takes, worked out before anything is fetched.

A plan is made from the stores as they are, so the same command goes on where an interrupted one
stopped: published cycles and archived analyses are not planned again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from flows import stages
from flows.estimates import Costs, costs
from flows.provenance import other_shape
from flows.settings import Settings
from flows.timetable import CYCLE_STEP_HOURS, due_cycle
from flows.watch.status_text import duration
from ingest.sources import Source, analysis_files
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, MosaicOpsError
from postprocess.publish import published_cycle
from postprocess.retention_rules import parse_rules

LIMIT_CYCLES = 4 * 366
STAND_IN = "6-h forecast"
OTHERS = "with other members, length or variant: mosaic-ops run CYCLE --again computes one of these"


@dataclass(frozen=True)
class Need:
    """An analysis that cycles of the plan start from. `origin`: the archive, a mirror's name, or
    STAND_IN for the forecast kept in its place; None when nothing has it. `why` says then what
    each mirror lacks."""

    analysis: Cycle
    origin: str | None
    why: str = ""

    @property
    def is_held(self) -> bool:
        """Nothing is to be fetched."""
        return self.origin in {"archive", STAND_IN}


@dataclass(frozen=True)
class Plan:
    """What a backfill will do. `others` are the published cycles that are of another shape than
    the settings', which stay as they are. `holes` are cycles that cannot be run, with the reason;
    `stand_ins` are those that start from forecasts in the place of the analyses named. `kept` is
    the rule by which its forecasts go, empty if they stay."""

    cycles: tuple[Cycle, ...]
    published: tuple[Cycle, ...]
    others: tuple[Cycle, ...]
    holes: dict[Cycle, str]
    stand_ins: dict[Cycle, tuple[Cycle, ...]]
    needs: tuple[Need, ...]
    costs: Costs
    kept: str

    @property
    def to_fetch(self) -> tuple[Need, ...]:
        """Analyses to fetch, each once however many cycles share it, oldest first."""
        return tuple(need for need in self.needs if not need.is_held)

    @property
    def fetch_bytes(self) -> float:
        """Bytes from the mirrors."""
        return len(self.to_fetch) * self.costs.fetch_bytes

    @property
    def gpu_seconds(self) -> float:
        """Seconds that a GPU is held."""
        return len(self.cycles) * self.costs.gpu_seconds

    @property
    def stored_bytes(self) -> float:
        """Bytes that stay: publications and the archive; the fetched files are deleted in time."""
        archived = len(self.to_fetch) * self.costs.archive_bytes
        return len(self.cycles) * self.costs.stored_bytes + archived


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
    manifests = ((cycle, published_cycle(settings.published, cycle)) for cycle in cycles)
    done = {cycle: manifest for cycle, manifest in manifests if manifest}
    wanted = [cycle for cycle in cycles if cycle not in done]
    histories = {cycle: stages.history(cycle, settings) for cycle in wanted}
    needed = sorted({analysis for history in histories.values() for analysis in history})
    missing = {each for cycle in wanted for each in stages.missing_analyses(cycle, settings)}
    fills = stages.held_fills(settings)
    found = {each: _need(each, missing, fills, settings, now) for each in needed}
    holes = dict(_holes(histories, found, settings.forecast_fills))
    runnable = tuple(cycle for cycle in wanted if cycle not in holes)
    used = sorted({analysis for cycle in runnable for analysis in histories[cycle]})
    stand_ins = {cycle: _stood_in_for(histories[cycle], found) for cycle in runnable}
    return Plan(
        cycles=runnable,
        published=tuple(sorted(done)),
        others=tuple(cycle for cycle in sorted(done) if other_shape(done[cycle], settings)),
        holes=holes,
        stand_ins={cycle: slots for cycle, slots in stand_ins.items() if slots},
        needs=tuple(found[analysis] for analysis in used),
        costs=costs(settings),
        kept=str(parse_rules(settings.keep_published)["forecast"]),
    )


def _need(
    analysis: Cycle,
    missing: set[Cycle],
    fills: Collection[Cycle],
    settings: Settings,
    now: dt.datetime,
) -> Need:
    if analysis not in missing:
        return Need(analysis, "archive")
    refusals = []
    for name in settings.mirrors:
        refusal = _refusal(analysis, stages.mirror(name), now)
        if refusal is None:
            return Need(analysis, name)
        refusals.append(f"{name}: {refusal}")
    return Need(analysis, STAND_IN if analysis in fills else None, "; ".join(refusals))


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
    histories: dict[Cycle, tuple[Cycle, ...]], found: dict[Cycle, Need], forecast_fills: int
) -> Iterator[tuple[Cycle, str]]:
    """Cycles that lack an analysis nothing stands in for. A mirror whose time for an analysis is
    over has no forecast valid then either: only what is kept already can stand in."""
    for cycle, history in histories.items():
        lacking = {each for each in history if found[each].origin is None}
        gaps = [each for each in history if found[each].why]
        blocking = hindrance(cycle, gaps, forecast_fills) or next(iter(sorted(lacking)), None)
        if blocking:
            yield cycle, f"no source has the analysis of {blocking} ({found[blocking].why})"


def hindrance(cycle: Cycle, gaps: Sequence[Cycle], forecast_fills: int) -> Cycle | None:
    """Which of the analyses that are not to be had keeps `cycle` from starting, as in
    `obtain_history`: the newest has no stand-in, of the others `forecast_fills` may have one."""
    if cycle in gaps:
        return cycle
    return gaps[0] if len(gaps) > forecast_fills else None


def _stood_in_for(history: Sequence[Cycle], found: dict[Cycle, Need]) -> tuple[Cycle, ...]:
    return tuple(each for each in history if found[each].origin == STAND_IN)


def refuse_nothing_but_holes(plan: Plan) -> None:
    """InputError when no source has what any cycle of the plan needs."""
    if plan.holes and not plan.cycles and not plan.published:
        cycle, why = next(iter(plan.holes.items()))
        raise InputError(
            f"none of the {len(plan.holes)} cycles can be run: {why}",
            where=f"cycle {cycle}",
            remedy="mosaic-ops sources plan START END says which dates are to be had",
        )


def plan_lines(plan: Plan) -> list[str]:
    """The plan for people, one fact a line."""
    origins: dict[str, int] = {}
    for need in plan.needs:
        origins[need.origin or "none"] = origins.get(need.origin or "none", 0) + 1
    told = ", ".join(f"{count} from {origin}" for origin, count in sorted(origins.items()))
    origin = plan.costs.origin
    lines = [
        f"{len(plan.cycles)} cycles to run"
        + (f", {plan.cycles[0]} to {plan.cycles[-1]}" if plan.cycles else ""),
        f"{len(plan.published)} are published already"
        + (f", of them {len(plan.others)} {OTHERS}" if plan.others else ""),
        f"{len(plan.needs)} analyses, each used by every cycle that needs it: {told or 'none'}",
        f"{len(plan.to_fetch)} to fetch, {plan.fetch_bytes / 1e9:.2f} GB ({origin('fetch')})",
        f"{duration(plan.gpu_seconds)} of GPU ({origin('gpu')})",
        f"{plan.stored_bytes / 1e9:.2f} GB to store ({origin('stored')})",
        f"forecasts go when {plan.kept}, counted from their publication (keep_published)"
        if plan.kept
        else "forecasts stay for ever (keep_published)",
    ]
    lines += [
        f"{cycle} starts from the {STAND_IN} for {', '.join(map(str, slots))}"
        for cycle, slots in plan.stand_ins.items()
    ]
    return lines + [f"hole {cycle}: {why}" for cycle, why in plan.holes.items()]


def every_hours(text: str) -> int:
    """Hours in '6h' or '24h'; InputError for anything else."""
    digits = text.removesuffix("h")
    if not digits.isdigit():
        raise InputError(f"cannot read {text!r} as hours", remedy="write it like 6h or 24h")
    return int(digits)
