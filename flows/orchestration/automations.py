"""Prefect's own automations: they speak when the reconciler, which raises the alerts, cannot."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from mosaic_core.contract.errors import InputError

RECONCILER = "mosaic-ops: the reconciler fails"
POOL = "mosaic-ops: a pool has no worker"


def apply_automations(client: SyncPrefectClient, block: str) -> tuple[str, ...]:
    """Create or update the automations, which tell the notification block TYPE/NAME; their names.

    InputError when the server has no such block.
    """
    target = _block(client, block)
    wanted = (
        _automation(RECONCILER, _run_of("reconcile"), target, "mosaic-ops status"),
        _automation(POOL, _pool_not_ready(), target, "mosaic-ops workers"),
    )
    for automation in wanted:
        _apply(automation)
    return tuple(automation.name for automation in wanted)


def _block(client: SyncPrefectClient, block: str) -> UUID:
    slug, _, name = block.partition("/")
    try:
        return client.read_block_document_by_name(name, slug).id
    except (ObjectNotFound, ValueError):
        raise InputError(
            f"the server has no block {block!r}",
            remedy="make it on the page Blocks; its name here is TYPE/NAME: slack-webhook/oncall",
        ) from None


def _run_of(flow: str) -> EventTrigger:
    ended_badly = ("Failed", "Crashed", "TimedOut")
    return EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in ended_badly},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": flow},
        posture=Posture.Reactive,
        threshold=1,
    )


def _pool_not_ready() -> EventTrigger:
    return EventTrigger(
        expect={"prefect.work-pool.not-ready"},
        match={"prefect.resource.id": "prefect.work-pool.*"},
        posture=Posture.Reactive,
        threshold=1,
    )


def _automation(name: str, trigger: EventTrigger, target: UUID, command: str) -> Automation:
    resource = "{{ event.resource['prefect.resource.name'] }}"
    body = f"{{{{ event.event }}}} of {resource}\nnext: {command}"
    notify = SendNotification(block_document_id=target, subject=name, body=body)
    return Automation(name=name, trigger=trigger, actions=[notify])


def _apply(automation: Automation) -> None:
    try:
        there: Any = Automation.read(name=automation.name)
    except ValueError:  # there is none of that name
        automation.create()
        return
    automation.id = there.id
    automation.update()
