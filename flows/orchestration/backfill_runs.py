"""The cycles of a backfill as runs of their own, few at a time, behind the live ones."""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Crashed

from flows import stages
from flows.locks import is_worked_on
from flows.orchestration.runs import (
    Request,
    ask,
    connected,
    cycle_tag,
    ended,
    find_deployment,
    run_name,
    shape_of,
    words,
)
from flows.orchestration.vigil import Vigil
from flows.plan import Plan
from flows.progress import Reporter
from flows.settings import Settings
from flows.watch.reconcile import GRACE
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError

BACKFILL_DEPLOYMENT = "forecast/backfill"
CAMPAIGN_DEPLOYMENT = "backfill/on-demand"
CAMPAIGN_LOCKS = "backfill"
POLL_SECONDS = 3.0
REVIVALS = 3


def run_on_pool(
    plan: Plan, settings: Settings, report: Reporter, skip: dict[Cycle, str], max_active: int
) -> dict[Cycle, str]:
    """Run the plan's cycles, oldest first, `max_active` at once; those that failed, and why.

    Never more runs wait than may work: a long queue would hold up everything behind it. A cycle
    that fails is tried as often as the settings say, the others go on. `skip` are cycles that
    cannot run. Asking again after an interruption joins the runs that are under way.
    """
    total = len(plan.cycles)
    with connected() as client, report.stage(f"backfill of {total} cycles") as advance:
        campaign = _Campaign(
            client,
            find_deployment(client, BACKFILL_DEPLOYMENT),
            settings,
            report,
            deque(cycle for cycle in plan.cycles if cycle not in skip),
            failures=dict(skip),
        )
        while campaign.left:
            campaign.start(max_active)
            campaign.collect()
            advance(total - campaign.left, total, f"{len(campaign.failures)} failed")
            time.sleep(POLL_SECONDS if campaign.left else 0)
    return campaign.failures


@dataclass
class _Campaign:
    """The cycles that wait, the runs that are open, and what failed for good.

    `busy` are cycles that another run worked on when theirs came; they wait for its lock.
    """

    client: SyncPrefectClient
    deployment: UUID
    settings: Settings
    report: Reporter
    waiting: deque[Cycle]
    failures: dict[Cycle, str]
    active: dict[Cycle, Vigil] = field(default_factory=dict)
    tries: Counter[Cycle] = field(default_factory=Counter)
    busy: set[Cycle] = field(default_factory=set)

    @property
    def left(self) -> int:
        """Cycles that are not settled."""
        return len(self.waiting) + len(self.active)

    def start(self, max_active: int) -> None:
        """Ask for runs up to the limit, oldest cycle first."""
        for cycle in [each for each in self.waiting if not self._is_held_up(each)]:
            if len(self.active) < max_active:
                self.waiting.remove(cycle)
                request = _request(cycle, self.settings)
                run = ask(self.client, self.deployment, request, is_useful=lambda _run: False)
                self.active[cycle] = self._vigil(cycle, run)

    def collect(self) -> None:
        """Settle the cycles whose runs are over."""
        for cycle, vigil in list(self.active.items()):
            found = vigil.look(self.client)
            if ended(found):
                del self.active[cycle]
                self._settle(cycle, found)

    def _vigil(self, cycle: Cycle, run: FlowRun) -> Vigil:
        return Vigil(run.id, lambda: self._is_worked_on(cycle), self.report)

    def _is_worked_on(self, cycle: Cycle) -> bool:
        return is_worked_on(cycle, self.settings.locks)

    def _is_held_up(self, cycle: Cycle) -> bool:
        return cycle in self.busy and self._is_worked_on(cycle)

    def _settle(self, cycle: Cycle, run: FlowRun) -> None:
        """Published, or another try, or a failure; a run that met a busy cycle is no try."""
        if stages.published_address(cycle, self.settings):
            return
        if run.state_name == "Skipped":
            self.busy.add(cycle)
        else:
            self.tries[cycle] += 1
        if self.tries[cycle] < self.settings.attempts:
            self.waiting.append(cycle)
        else:
            self.failures[cycle] = words(run)


def _request(cycle: Cycle, settings: Settings) -> Request:
    shape = shape_of(settings)
    return Request(
        key="/".join(map(str, ("backfill", cycle.id, *shape.values()))),
        name=run_name(cycle),
        parameters={"cycle": cycle.label, **shape},
        tags=(cycle_tag(cycle),),
    )


def revive(client: SyncPrefectClient, settings: Settings, now: dt.datetime) -> tuple[str, ...]:
    """Start backfills again whose machine died; the names of those.

    They go on where they stopped, at most `REVIVALS` times without anybody looking.
    """
    revived = []
    for run in client.read_flow_runs(flow_filter=_BACKFILLS, flow_run_filter=_UNDER_WAY):
        if _is_dead(run, settings, now):
            dead: State[None] = Crashed(message="no process holds the lock of the backfill")
            client.set_flow_run_state(run.id, dead, force=True)
            revived += [run.name] if _start_again(client, run) else []
    return tuple(revived)


_BACKFILLS = FlowFilter(name=FlowFilterName(any_=["backfill"]))
_UNDER_WAY = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})


def _is_dead(run: FlowRun, settings: Settings, now: dt.datetime) -> bool:
    try:
        first = Cycle.parse(str(run.parameters["first"]))
    except InputError:  # somebody typed nonsense into the form: the run fails by itself
        return False
    since = run.state.timestamp if run.state else now
    return now - since > GRACE and not is_worked_on(first, settings.locks / CAMPAIGN_LOCKS)


def _start_again(client: SyncPrefectClient, run: FlowRun) -> bool:
    """A run like the dead one; False when that was the last revival."""
    count = sum(tag.startswith("revival") for tag in run.tags) + 1
    if count > REVIVALS:
        return False
    client.create_flow_run_from_deployment(
        find_deployment(client, CAMPAIGN_DEPLOYMENT),
        parameters=run.parameters,
        name=run.name,
        tags=[*run.tags, f"revival {count}"],
        idempotency_key=f"after/{run.id}",
    )
    return True
