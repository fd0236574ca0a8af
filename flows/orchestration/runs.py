"""Prefect's runs of forecast cycles: read them as facts, carry out what was decided."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Crashed, Scheduled

from flows.settings import Settings
from flows.timetable import due_cycle
from flows.watch.reconcile import Action, Run
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, MosaicOpsError

FORECAST = "forecast"
LIVE_DEPLOYMENT = "forecast/live"
BACKFILL_TAG = "backfill"
CLOCK_TOLERANCE = dt.timedelta(minutes=1)
PAGE = 200  # Prefect's own limit of one answer

_log = logging.getLogger("mosaic_ops")


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the configured server; MosaicOpsError says what is wrong with the connection."""
    if not PREFECT_API_URL.value():
        raise InputError(
            "no Prefect server is named",
            where="PREFECT_API_URL",
            remedy="start `mosaic-ops server`; export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.ReadTimeout:  # it took the request and could not finish it
        raise _no_database("does not finish what it is asked") from None
    except httpx.TransportError as error:
        raise MosaicOpsError(
            f"the Prefect server does not answer: {error or type(error).__name__}",
            where=_server(),
            remedy="start it (`mosaic-ops server`), or correct PREFECT_API_URL",
        ) from None
    except PrefectHTTPStatusError as error:
        raise _refusal(error.response.status_code) from None


def _refusal(status: int) -> MosaicOpsError:
    """What an answer of the server other than a good one means."""
    if status == httpx.codes.UNAUTHORIZED:
        return InputError(
            "the Prefect server wants another password",
            where=_server(),
            remedy="set PREFECT_API_AUTH_STRING to the server's user:password",
        )
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return _no_database(f"answers {status}")
    return MosaicOpsError(
        f"the Prefect server answers {status}",
        where=_server(),
        remedy="server and client must be of the same version: pip check on both",
    )


def _no_database(what: str) -> MosaicOpsError:
    return MosaicOpsError(
        f"the Prefect server {what}: its database is locked or gone",
        where=_server(),
        remedy="look at the server's log and at the database (pg_isready); cycles go on "
        "without the server: mosaic-ops run CYCLE",
    )


def clock_skew(now: dt.datetime) -> dt.timedelta:
    """How far this machine's clock is ahead of the server's; zero when the server does not say."""
    answer = httpx.get(f"{_server()}/health", timeout=10)
    said = answer.headers.get("date")
    return now - parsedate_to_datetime(said) if said else dt.timedelta()


def refuse_skew(now: dt.datetime) -> None:
    """InputError when this machine's clock and the server's differ by more than a minute.

    Schedules, deadlines and the age of a silent run are reckoned from both.
    """
    skew = clock_skew(now)
    if abs(skew) > CLOCK_TOLERANCE:
        way = "ahead of" if skew > dt.timedelta() else "behind"
        raise InputError(
            f"this machine's clock is {abs(skew).total_seconds():.0f} s {way} the Prefect server's",
            where=_server(),
            remedy="let both follow a time server: timedatectl set-ntp true",
        )


def live_runs(client: SyncPrefectClient, since: dt.datetime) -> list[Run]:
    """Runs of the forecast flow that were due after `since`, without those of backfills."""
    found: list[Run] = []
    while page := _page(client, since, offset=len(found)):
        found.extend(map(as_fact, page))
        if len(page) < PAGE:
            break
    return [run for run in found if BACKFILL_TAG not in run.tags]


def _page(client: SyncPrefectClient, since: dt.datetime, offset: int) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FORECAST])),
        flow_run_filter=FlowRunFilter(
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"after_": since})
        ),
        limit=PAGE,
        offset=offset,
    )


def as_fact(run: FlowRun) -> Run:
    """What the reconciler needs to know of a run; its cycle is given or follows from its time."""
    due = run.expected_start_time or run.created or dt.datetime.now(dt.UTC)
    state = run.state
    return Run(
        id=str(run.id),
        cycle=_cycle(run.parameters, due),
        state=state.type.value if state else "SCHEDULED",
        label=(state.name if state else None) or "",
        name=run.name,
        since=state.timestamp if state else due,
        due=due,
        tags=frozenset(run.tags),
    )


def _cycle(parameters: dict[str, Any], due: dt.datetime) -> Cycle:
    given = parameters.get("cycle")
    try:
        return Cycle.parse(given) if given else due_cycle(due)
    except InputError:  # somebody typed nonsense into the form: the run fails by itself
        return due_cycle(due)


def carry_out(client: SyncPrefectClient, actions: Iterable[Action]) -> None:
    """Do what was decided, in its order; each action is logged with its reason."""
    for action in actions:
        _log.info("%s %s: %s", action.kind, action.cycle, action.reason)
        _DO[action.kind](client, action)


def _start(client: SyncPrefectClient, action: Action) -> None:
    request = Request(
        key=f"live/{action.cycle.id}",
        name=run_name(action.cycle),
        parameters={"cycle": action.cycle.label},
        tags=(cycle_tag(action.cycle), "reconciled"),
        at=action.at,
        first=action.number,
    )
    deployment = find_deployment(client, LIVE_DEPLOYMENT)
    ask(client, deployment, request, is_useful=lambda _run: False)


def _crash(client: SyncPrefectClient, action: Action) -> None:
    assert action.run is not None
    client.set_flow_run_state(action.run, Crashed(message=action.reason), force=True)


def _skip(client: SyncPrefectClient, action: Action) -> None:
    assert action.run is not None
    state: State[None] = Completed(name="Skipped", message=action.reason)
    client.set_flow_run_state(action.run, state, force=True)


def _reorder(client: SyncPrefectClient, action: Action) -> None:
    assert action.run is not None
    client.set_flow_run_state(action.run, Scheduled(scheduled_time=action.at), force=True)


_DO = {"start": _start, "crash": _crash, "skip": _skip, "reorder": _reorder}


@dataclass(frozen=True)
class Request:
    """A run to ask for. `key` names the series: asking again finds the run asked for before.

    It is to start at `at` (None: now); `first` is the number in the series to begin to look at.
    """

    key: str
    name: str
    parameters: dict[str, Any]
    tags: tuple[str, ...]
    queue: str | None = None
    at: dt.datetime | None = None
    first: int = 0


def ask(
    client: SyncPrefectClient,
    deployment: UUID,
    request: Request,
    is_useful: Callable[[FlowRun], bool],
) -> FlowRun:
    """The run of the series that works, waits or ended usefully; a new one when there is none.

    Runs of a series are numbered by their idempotency keys, so whoever asks again after a crash
    joins the run of the process that died, and two askers share one run.
    """
    state: State[None] | None = Scheduled(scheduled_time=request.at) if request.at else None
    for number in itertools.count(request.first):
        run = client.create_flow_run_from_deployment(
            deployment,
            parameters=request.parameters,
            state=state,
            work_queue_name=request.queue,
            name=request.name,
            tags=request.tags,
            idempotency_key=f"{request.key}/{number}",
        )
        if not ended(run) or is_useful(run):
            return run
    raise AssertionError("the numbers do not end")


def ended(run: FlowRun) -> bool:
    """Whether the run is over, well or badly."""
    return run.state is not None and run.state.is_final()


def words(run: FlowRun) -> str:
    """A run's state and its message."""
    return f"{run.state_name} {(run.state.message if run.state else None) or ''}".strip()


def name_waiting(client: SyncPrefectClient, runs: Iterable[Run]) -> None:
    """Give scheduled runs the name of their cycle, so that the list of what comes reads well."""
    for run in runs:
        if run.waits and run.name != run_name(run.cycle):
            tags = sorted({*run.tags, cycle_tag(run.cycle)})
            client.update_flow_run(UUID(run.id), name=run_name(run.cycle), tags=tags)


def find_deployment(client: SyncPrefectClient, name: str) -> UUID:
    """Id of the deployment `flow/name`; MosaicOpsError when it is not on the server."""
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        raise MosaicOpsError(
            f"the server has no deployment {name}", where=_server(), remedy="mosaic-ops deploy"
        ) from None


def _server() -> str:
    return PREFECT_API_URL.value() or "no PREFECT_API_URL"


def shape_of(settings: Settings) -> dict[str, Any]:
    """The parameters of a forecast besides its cycle."""
    return {
        "variant": settings.variant,
        "members": settings.members,
        "lead_hours": settings.lead_hours,
    }


def run_name(cycle: Cycle) -> str:
    """Name of a run for people."""
    return f"forecast {cycle}"


def cycle_tag(cycle: Cycle) -> str:
    """Tag by which the interface filters the runs of a cycle."""
    return f"cycle:{cycle}"
