"""Prefect's own automations, on a real server, to a real webhook."""

from __future__ import annotations

import httpx
import pytest
from prefect import flow
from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.orchestration.automations import POOL, RECONCILER, apply_automations
from flows.orchestration.runs import connected
from mosaic_core.contract.errors import InputError
from tests.flows.installation import until
from tests.flows.receiver import receiver


@flow(name="reconcile")
def failing() -> None:
    raise ValueError("out of order")


def test_a_reconciler_that_fails_tells_the_block_once(prefect_api: str) -> None:
    with receiver() as (address, received), temporary_settings({PREFECT_API_URL: prefect_api}):
        CustomWebhookNotificationBlock(
            name="on call", url=address, json_data={"text": "{{subject}}: {{body}}"}
        ).save("oncall", overwrite=True)
        with connected() as client:
            for _ in range(2):  # safe to repeat
                assert apply_automations(client, "custom-webhook/oncall") == (RECONCILER, POOL)
        assert len([each for each in _automations(prefect_api) if each == RECONCILER]) == 1
        with pytest.raises(ValueError, match="out of order"):
            failing()
        until(lambda: received, 60, "the notification")
        Automation.read(name=RECONCILER).delete()
        Automation.read(name=POOL).delete()
    assert len(received) == 1
    assert RECONCILER in str(received[0])
    assert "mosaic-ops status" in str(received[0])


def _automations(api: str) -> list[str]:
    found = httpx.post(f"{api}/automations/filter", json={}, timeout=30).json()
    return [each["name"] for each in found]


@pytest.mark.parametrize("block", ["slack-webhook/nobody", "nonsense", "no-such-type/x"])
def test_a_block_that_is_not_there_is_named(prefect_api: str, block: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: prefect_api}),
        connected() as client,
        pytest.raises(InputError, match="has no block"),
    ):
        apply_automations(client, block)
