"""Stages as tasks: what is tried again, and displays that never cost the stage."""

from __future__ import annotations

import inspect
import logging

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import forecast
from flows.orchestration.tasks import (
    MARKDOWN_LIMIT_BYTES,
    POLICIES,
    PrefectReporter,
    as_task,
    is_transient,
    post_markdown,
)
from flows.progress import LogReporter
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import (
    DataError,
    InputError,
    ModelError,
    NotYetAvailable,
    PublishError,
    SourceError,
)
from postprocess.objects.root import RefusedError, UnreachableError
from tests.flows import toy_stages
from tests.flows.installation import until

CYCLE = Cycle.parse("2026-11-10T00Z")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (SourceError("503"), True),
        (httpx.ConnectError("refused"), True),
        (ConnectionResetError(), True),
        (UnreachableError("the store failed: 503"), True),
        (RefusedError("no permission"), False),
        (PublishError("objects differ from what was sent"), False),
        (NotYetAvailable("deadline passed"), False),
        (DataError("truncated"), False),
        (ModelError("not finite"), False),
        (InputError("unknown"), False),
        (ValueError("ours"), False),
    ],
)
def test_only_what_can_recover_in_a_minute_is_tried_again(error: Exception, again: bool) -> None:
    assert is_transient(error) is again


def test_every_stage_of_the_page_has_a_policy() -> None:
    page = inspect.getsource(forecast)
    called = {
        line.split("run(stages.")[1].split(",")[0]
        for line in page.splitlines()
        if "run(stages." in line
    }
    assert called == set(POLICIES)


def test_a_stage_is_a_task_that_recovers_from_an_outage(
    prefect_api: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    root = tmp_path_factory.mktemp("tasks")
    settings = Settings(data_root=root, variant="mini", members=4, lead_hours=24)
    monkeypatch.setattr(forecast, "stages", toy_stages)
    monkeypatch.setitem(
        POLICIES, "fetch", type(POLICIES["fetch"])("fetch", retry_delays=(0.1, 0.1))
    )
    toy_stages.offer(settings, *toy_stages.history(CYCLE, settings))
    toy_stages.offer(settings, CYCLE, fault="outage")

    @flow(name="probe")
    def whole() -> str:
        report = PrefectReporter(LogReporter())
        return forecast.forecast_cycle(CYCLE, settings, report, as_task).address

    with temporary_settings({PREFECT_API_URL: prefect_api}):
        assert whole().startswith(settings.published)

    def tries() -> dict[str, int]:
        found = httpx.post(f"{prefect_api}/task_runs/filter", json={}, timeout=30).json()
        return {each["name"]: each["run_count"] for each in found}

    # The server counts a little later than the run goes on.
    until(lambda: tries().get(f"fetch {CYCLE}") == 2, 60, "the second try")
    until(lambda: tries().get(f"rollout {CYCLE}") == 1, 60, "the rollout")


def test_without_a_server_the_display_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere), caplog.at_level(logging.WARNING):
        with PrefectReporter().stage("rollout") as advance:
            advance(1, 2, "")
            advance(2, 2, "")
        post_markdown("status", "Status", "text")
    assert "not shown in Prefect" in caplog.text


def test_a_text_too_large_for_the_database_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        post_markdown("maps", "Maps", "x" * (MARKDOWN_LIMIT_BYTES + 1))
    assert "left out" in caplog.text
