"""The flows that Prefect schedules, with parameters that its interface explains and checks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed
from pydantic import Field

from flows import stages
from flows.backfill import failed_histories, ingest_all, summary_lines
from flows.forecast import Outcome, forecast_cycle
from flows.locks import CycleIsBusyError, cycle_lock, is_worked_on
from flows.orchestration.backfill_runs import CAMPAIGN_LOCKS, run_on_pool
from flows.orchestration.exhibits import Exhibit, as_list, exhibits_of, exhibits_of_failure
from flows.orchestration.gpu_stage import BACKFILL_QUEUE, ROLLOUT_LOCKS, runner
from flows.orchestration.operations import reconcile_once
from flows.orchestration.runs import BACKFILL_TAG, connected, cycle_tag, find_deployment, run_name
from flows.orchestration.tasks import (
    LastStage,
    PrefectReporter,
    as_task,
    keep_to_the_story,
    log_as_json,
    name_run,
    post_markdown,
    quieten_console,
    tolerant,
)
from flows.plan import Plan, every_hours, make_plan, plan_lines, refuse_nothing_but_holes, window
from flows.progress import Reporter
from flows.settings import Settings, load_settings
from flows.timetable import due_cycle, refuse_future
from flows.verify import scores_markdown, tell_of_drift
from flows.verify import verify as score
from flows.watch.canary import examine, tell
from flows.watch.reconcile import NO_SOURCE
from flows.watch.retention import free_space
from flows.watch.status_text import latency_markdown, matrix_markdown
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError, SourceError

RECONCILE_DEPLOYMENT = "reconcile/every-15-minutes"
CYCLE_PATTERN = r"^\d{4}-?\d{2}-?\d{2}[T ]?\d{2}(:?00)?Z?$"
CycleText = Annotated[str, Field(pattern=CYCLE_PATTERN)]
VariantName = Literal["hres", "era5", "mini"]
Members = Annotated[int, Field(ge=2, le=200)]
LeadHours = Annotated[int, Field(ge=6, le=360)]
"""Types that the interface checks; what a parameter means stands in the flow's docstring."""


def _name_of_forecast() -> str:
    return run_name(_cycle_of_run(flow_run.parameters.get("cycle")))


def call_reconciler(flow: object, flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Start the reconciler at once when a run ended badly.

    Prefect calls hooks with these three names as keywords when the worker runs them.
    """
    with tolerant("the call to the reconciler") as client:
        client.create_flow_run_from_deployment(
            find_deployment(client, RECONCILE_DEPLOYMENT),
            idempotency_key=f"after/{flow_run.id}/{flow_run.run_count}",
        )


@flow(
    name="forecast",
    flow_run_name=_name_of_forecast,
    on_failure=[call_reconciler],
    on_crashed=[call_reconciler],
    description="One forecast cycle, from the analysis on a mirror to the published stores.",
    retries=0,  # a crash kills the process that would retry: the reconciler starts a new run
    persist_result=False,
)
def forecast(
    cycle: CycleText | None = None,
    variant: VariantName | None = None,
    members: Members | None = None,
    lead_hours: LeadHours | None = None,
    again: bool = False,
) -> State[Any]:
    """Bring one cycle to publication; a cycle that is published or in work is left alone.

    Args:
        cycle: Initial time such as 2026-11-23T00Z (00, 06, 12 or 18 UTC). Empty: the cycle that
            is due at the scheduled time of the run.
        variant: Model, hres (6-h steps) or era5 (24-h steps). Empty: the workers' setting.
        members: Ensemble size, 2 to 200. Empty: the workers' setting, normally 24.
        lead_hours: Length of the forecast in hours. Empty: the workers' setting, normally 240.
        again: Also when it is published, as with more members: readers get the better run.
    """
    settings = settings_of_run(variant=variant, members=members, lead_hours=lead_hours)
    chosen = refuse_future(_cycle_of_run(cycle), now())
    if cycle is None and (newer := untried_newer(chosen, settings, now())):
        return Completed(name="Deferred", message=f"{newer} comes first; the reconciler returns")
    tried = LastStage(runner(settings, _gpu_queue()))
    try:
        outcome = shown_cycle(chosen, settings, run=tried, again=again)
    except CycleIsBusyError as busy:
        return Completed(name="Skipped", message=str(busy))
    except SourceError as error:
        if tried.name != "wait":
            raise
        return Failed(name=NO_SOURCE, message=str(error))
    if not outcome.made:
        return Completed(name="Skipped", message=outcome.why)
    return Completed(name="Published", message=f"{chosen} is in {outcome.address}")


@flow(
    name="rollout",
    flow_run_name="rollout {cycle}",
    description="The ensemble of one cycle on a GPU, asked for by a forecast run.",
    persist_result=False,
)
def rollout(
    cycle: CycleText,
    variant: VariantName | None = None,
    members: Members | None = None,
    lead_hours: LeadHours | None = None,
) -> State[Any]:
    """Run the ensemble from the cycle's collected initial state; the message is its folder.

    Args:
        cycle: Initial time such as 2026-11-23T00Z.
        variant: Model, hres (6-h steps) or era5 (24-h steps). Empty: the workers' setting.
        members: Ensemble size, 2 to 200. Empty: the workers' setting, normally 24.
        lead_hours: Length of the forecast in hours. Empty: the workers' setting, normally 240.
    """
    settings = settings_of_run(variant=variant, members=members, lead_hours=lead_hours)
    chosen = Cycle.parse(cycle)
    state = settings.staging / chosen.id / stages.STATE
    with cycle_lock(chosen, settings.locks / ROLLOUT_LOCKS):
        folder = as_task(stages.rollout, chosen, state, settings, PrefectReporter())
    return Completed(message=str(folder))


def shown_cycle(
    cycle: Cycle,
    settings: Settings,
    echo: Reporter | None = None,
    run: Callable[..., Any] = as_task,
    *,
    again: bool = False,
) -> Outcome:
    """forecast_cycle inside a Prefect run: stages are tasks, results are on the run's page."""
    keep_to_the_story()
    name_run(run_name(cycle), (cycle_tag(cycle), f"variant:{settings.variant}"))
    try:
        outcome = forecast_cycle(cycle, settings, PrefectReporter(echo), run, again=again)
    except CycleIsBusyError:
        raise
    except MosaicOpsError as error:
        _show(exhibits_of_failure(cycle, settings, error))
        raise
    _show(exhibits_of(outcome, settings))
    return outcome


def _show(exhibits: Iterable[Exhibit]) -> None:
    for exhibit in exhibits:
        post_markdown(exhibit.key, exhibit.title, exhibit.text)


def run_in_prefect(
    cycle: Cycle, settings: Settings, address: str, echo: Reporter | None = None
) -> Outcome:
    """One cycle in this process with `settings` as they are, shown by the server at `address`.

    `address` is the server's API (http://host:port/api). Raises what forecast_cycle raises.
    """

    @flow(name="forecast", flow_run_name=run_name(cycle), persist_result=False)
    def here(cycle: str, variant: str, members: int, lead_hours: int) -> Outcome:  # noqa: ARG001
        if echo is not None:
            quieten_console()
        return shown_cycle(Cycle.parse(cycle), settings, echo)

    with temporary_settings({PREFECT_API_URL: address}):
        outcome = here(cycle.label, settings.variant, settings.members, settings.lead_hours)
        APILogHandler().flush()
    return outcome


def _cycle_of_run(given: str | None) -> Cycle:
    """The cycle asked for, or the one that was due when the run was scheduled to start."""
    return Cycle.parse(given) if given else due_cycle(flow_run.scheduled_start_time or now())


@flow(
    name="reconcile",
    flow_run_name=lambda: f"reconcile {now():%Y-%m-%dT%H:%MZ}",
    description="Finishes crashed, late and missing cycles, newest first; raises the alerts.",
    persist_result=False,
    timeout_seconds=600,
)
def reconcile(
    dry_run: bool = False,
) -> State[Any]:
    """One pass over the cycles of the last days.

    Args:
        dry_run: Only say what would be done.
    """
    settings = settings_of_run()
    with connected() as client:
        done = reconcile_once(settings, client, now(), dry_run=dry_run)
    post_markdown("cycles", "Cycles", matrix_markdown(done.table, done.figures))
    post_markdown("latency", "Latency of the stages", latency_markdown(done.figures))
    return Completed(message=done.summary)


def _gpu_queue() -> str | None:
    """The GPU pool's queue: runs of a backfill stand behind the live ones."""
    return BACKFILL_QUEUE if BACKFILL_TAG in (flow_run.tags or ()) else None


@flow(
    name="backfill",
    flow_run_name="backfill {first} to {last}",
    description="Many past cycles, few at a time, behind the live ones. Safe to start again.",
    persist_result=False,
)
def backfill(
    first: CycleText,
    last: CycleText,
    every: Literal["6h", "12h", "24h"] = "6h",
    variant: VariantName | None = None,
    members: Members | None = None,
    lead_hours: LeadHours | None = None,
    max_active: Annotated[int, Field(ge=1, le=16)] = 2,
    dry_run: bool = False,
) -> State[Any]:
    """Plan, ingest each analysis once, run the cycles; failures stay with their cycle.

    Args:
        first: First cycle of the window, such as 2026-11-01T00Z.
        last: Last cycle of the window; it must be due already.
        every: Spacing of the cycles.
        variant: Model, hres (6-h steps) or era5 (24-h steps). Empty: the workers' setting.
        members: Ensemble size, 2 to 200. Empty: the workers' setting, normally 24.
        lead_hours: Length of the forecast in hours. Empty: the workers' setting, normally 240.
        max_active: Cycles at once; the limit of the GPU pool's queue bounds them too.
        dry_run: Only make the plan.
    """
    settings = settings_of_run(variant=variant, members=members, lead_hours=lead_hours)
    cycles = window(Cycle.parse(first), Cycle.parse(last), every_hours(every), now())
    plan = make_plan(cycles, settings, now())
    post_markdown("backfill-plan", "Plan", as_list(plan_lines(plan)))
    refuse_nothing_but_holes(plan)
    if dry_run:
        return Completed(name="Planned", message=plan_lines(plan)[0])
    try:
        with cycle_lock(cycles[0], settings.locks / CAMPAIGN_LOCKS):
            return _campaign(plan, settings, max_active)
    except CycleIsBusyError:
        return Completed(name="Skipped", message=f"a backfill from {cycles[0]} is under way")


def _campaign(plan: Plan, settings: Settings, max_active: int) -> State[Any]:
    """The work of a plan, and what became of it."""
    report = PrefectReporter()
    unread = ingest_all(plan.to_fetch, settings, report, max_active)
    skip = failed_histories(plan.cycles, unread, settings)
    failures = run_on_pool(plan, settings, report, skip, max_active)
    summary = summary_lines(plan, failures)
    post_markdown("backfill-summary", "Summary", as_list(summary))
    return Failed(message=summary[0]) if failures else Completed(message=summary[0])


@flow(
    name="verify",
    description="Scores published forecasts against the analyses since then; tells of drift.",
    persist_result=False,
)
def verify(
    since: CycleText | None = None,
) -> State[Any]:
    """Score what is not scored yet. Safe to repeat.

    Args:
        since: Oldest analysis to score against. Empty: one forecast before the newest.
    """
    settings = settings_of_run()
    done = score(settings, PrefectReporter(), Cycle.parse(since) if since else None)
    raised = tell_of_drift(settings, now())
    post_markdown("scores", "Scores", scores_markdown(settings, now()))
    told = "".join(f", alert {alert.key}" for alert in raised)
    return Completed(message=f"{done.summary}{told}")


@flow(
    name="retention",
    description="Deletes fetched files, staged runs and publications that are past their time.",
    persist_result=False,
)
def retention(
    dry_run: bool = False,
) -> State[Any]:
    """Free space by the settings' limits.

    Args:
        dry_run: Only say what would be deleted.
    """
    freed = free_space(settings_of_run(), now(), dry_run=dry_run)
    post_markdown("retention", "Retention", as_list(freed.lines))
    return Completed(message=freed.summary)


@flow(
    name="canary",
    description="Is this machine fit to run the model? Digests, GPU, a rollout against its golden.",
    persist_result=False,
)
def canary() -> State[Any]:
    """Fails with the reason, and raises an alert, when it is not."""
    settings = settings_of_run()
    verdict = examine(settings)
    tell(verdict, settings, now())
    post_markdown("canary", "Canary", as_list(verdict.lines))
    return Completed(message=verdict.summary) if verdict.is_fit else Failed(message=verdict.summary)


def untried_newer(cycle: Cycle, settings: Settings, moment: dt.datetime) -> Cycle | None:
    """The newest due cycle, if it is newer than `cycle` and nobody has begun it.

    After an outage the late runs come oldest first; this lets the newest cycle pass.
    """
    newest = due_cycle(moment)
    begun = (settings.receipts / newest.id).exists() or is_worked_on(newest, settings.locks)
    return newest if newest > cycle and not begun else None


def settings_of_run(**options: Any) -> Settings:
    """The worker's settings with a run's own; its log is for machines when they say so."""
    settings = load_settings(**options)
    if settings.log_format == "json":
        log_as_json()
    return settings


def now() -> dt.datetime:
    """The time on the clock, UTC."""
    return dt.datetime.now(dt.UTC)
