"""The flows that Prefect schedules, with parameters that its interface explains and checks."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from pydantic import Field

from flows.exhibits import exhibits_of
from flows.forecast import Outcome, forecast_cycle
from flows.locks import CycleIsBusyError
from flows.progress import Reporter
from flows.settings import Settings, load_settings
from flows.tasks import PrefectReporter, as_task, name_run, post_markdown, quieten_console
from flows.timetable import due_cycle, refuse_future
from mosaic_core.contract.cycle import Cycle

CycleText = Annotated[
    str | None,
    Field(
        description="Initial time such as 2026-11-23T00Z (00, 06, 12 or 18 UTC). Empty: the cycle "
        "that is due at the scheduled time of the run.",
        pattern=r"^\d{4}-?\d{2}-?\d{2}[T ]?\d{2}(:?00)?Z?$",
    ),
]
VariantName = Annotated[
    Literal["hres", "era5", "mini"] | None,
    Field(description="Model: hres (6-h steps) or era5 (24-h steps). Empty: the worker's setting."),
]
Members = Annotated[
    int | None,
    Field(ge=2, le=200, description="Ensemble size. Empty: the worker's setting, normally 24."),
]
LeadHours = Annotated[
    int | None,
    Field(ge=6, le=360, description="Length of the forecast in hours. Empty: normally 240."),
]


def _name_of_forecast() -> str:
    return f"forecast {_cycle_of_run(flow_run.parameters.get('cycle'))}"


@flow(
    name="forecast",
    flow_run_name=_name_of_forecast,
    description="One forecast cycle, from the analysis on a mirror to the published stores.",
    retries=0,  # a crash kills the process that would retry: the reconciler starts a new run
    persist_result=False,
)
def forecast(
    cycle: CycleText = None,
    variant: VariantName = None,
    members: Members = None,
    lead_hours: LeadHours = None,
) -> State[Any]:
    """Bring one cycle to publication; a cycle that is published or in work is left alone."""
    settings = load_settings(variant=variant, members=members, lead_hours=lead_hours)
    chosen = refuse_future(_cycle_of_run(cycle), _now())
    try:
        outcome = shown_cycle(chosen, settings)
    except CycleIsBusyError as busy:
        return Completed(name="Skipped", message=str(busy))
    if not outcome.made:
        return Completed(name="Skipped", message=f"already published in {outcome.address}")
    return Completed(name="Published", message=f"{chosen} is in {outcome.address}")


def shown_cycle(cycle: Cycle, settings: Settings, echo: Reporter | None = None) -> Outcome:
    """forecast_cycle inside a Prefect run: stages are tasks, results are on the run's page."""
    name_run(f"forecast {cycle}", (f"cycle:{cycle}", f"variant:{settings.variant}"))
    outcome = forecast_cycle(cycle, settings, PrefectReporter(echo), as_task)
    for exhibit in exhibits_of(outcome, settings):
        post_markdown(exhibit.key, exhibit.title, exhibit.text)
    return outcome


def run_in_prefect(
    cycle: Cycle, settings: Settings, address: str, echo: Reporter | None = None
) -> Outcome:
    """One cycle in this process with `settings` as they are, shown by the server at `address`.

    `address` is the server's API (http://host:port/api). Raises what forecast_cycle raises.
    """

    @flow(name="forecast", flow_run_name=f"forecast {cycle}", persist_result=False)
    def here(cycle: str, variant: str, members: int, lead_hours: int) -> Outcome:  # noqa: ARG001
        return shown_cycle(Cycle.parse(cycle), settings, echo)

    if echo is not None:
        quieten_console()
    with temporary_settings({PREFECT_API_URL: address}):
        outcome = here(cycle.label, settings.variant, settings.members, settings.lead_hours)
        APILogHandler().flush()
    return outcome


def _cycle_of_run(given: str | None) -> Cycle:
    """The cycle asked for, or the one that was due when the run was scheduled to start."""
    return Cycle.parse(given) if given else due_cycle(flow_run.scheduled_start_time or _now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
