"""What stands on the page of a cycle, and which services are started how."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.forecast import Outcome
from flows.orchestration.exhibits import (
    WHOLE,
    key_of,
    overview,
    picture,
    verdict_card,
)
from flows.orchestration.operations import since_installed
from flows.orchestration.pools import apply_deployments, apply_pools, pools
from flows.orchestration.runs import connected
from flows.orchestration.service import (
    AUTHENTICATION,
    DATABASE,
    database_kind,
    is_loopback,
    server_command,
    worker_command,
)
from flows.orchestration.tasks import MARKDOWN_LIMIT_BYTES
from flows.settings import Settings
from flows.timetable import CYCLE_STEP_HOURS
from ingest.gate.verdict import Limits, Verdict, unchecked
from mosaic_core.contract.errors import InputError, MosaicOpsError
from postprocess.publish import published_cycle
from tests.flows.records import NEWEST, history, publish, receipt, row, run, settings


def noisy_map() -> bytes:
    """A large PNG that does not compress well."""
    rng = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(1200), np.arange(1600)) // 12 % 256
    noisy = (smooth[..., None] + rng.integers(0, 3, (1200, 1600, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, format="PNG")
    return out.getvalue()


def test_a_large_picture_is_made_small_enough_for_the_database() -> None:
    content = noisy_map()
    assert len(content) > WHOLE.limit_bytes
    text = picture("map", content, WHOLE)
    assert len(text) < len(content) / 5
    image = Image.open(io.BytesIO(base64.b64decode(text.split("base64,")[1].rstrip(")"))))
    assert max(image.size) == 900


def test_keys_are_those_that_prefect_accepts() -> None:
    assert key_of("Mean_sea level.500") == "mean-sea-level-500"


def test_a_fresh_installation_does_not_make_up_for_the_days_before() -> None:
    table = [row(NEWEST.shift(-6 * back), "due") for back in range(5)]
    assert since_installed(table, []) == tuple(table[:1])
    assert since_installed(table, [run(NEWEST.shift(-12), "FAILED", 1)]) == tuple(table[:3])
    begun = row(NEWEST.shift(-18), "failed", receipt(NEWEST.shift(-18), "rollout", 7, 1))
    assert since_installed([*table[:3], begun, table[4]], []) == (*table[:3], begun)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.53"])
def test_a_server_for_this_machine_needs_no_password(host: str) -> None:
    assert is_loopback(host)
    command, environment = server_command(host, 4200, {})
    assert command[-4:] == ["--host", host, "--port", "4200"]
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "filesystem" in environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "box.example", "10.0.0.1"])
def test_a_server_for_others_needs_one(host: str) -> None:
    with pytest.raises(InputError, match="without a password"):
        server_command(host, 4200, {AUTHENTICATION: ""})
    assert server_command(host, 4200, {AUTHENTICATION: "ops:secret"})


def test_workers_outlive_a_restart_of_the_server_and_answer_for_their_health() -> None:
    _, environment = worker_command("gpu", "process", None, None, {})
    assert environment["PREFECT_CLIENT_MAX_RETRIES"] == "8"
    command, environment = worker_command("gpu", "process", "box", 8080, {})
    assert command[-1] == "--with-healthcheck"
    assert environment["PREFECT_WORKER_WEBSERVER_PORT"] == "8080"


def test_the_database_is_named_without_its_password() -> None:
    address = "postgresql+asyncpg://prefect:hunter2@db:5432/prefect"
    assert database_kind({DATABASE: address}) == "db:5432/prefect"
    assert "SQLite" in database_kind({})


def test_a_backfill_leaves_a_gpu_to_the_live_cycle() -> None:
    limits = {gpus: pools(gpus)[1].queues[1].limit for gpus in (1, 2, 4)}
    assert limits == {1: 1, 2: 1, 4: 3}
    for gpus, runs in ((1, 2), (2, 2), (4, 4), (8, 8)):
        cpu = pools(gpus)[0]
        assert cpu.queues[2].limit == runs, "runs of a backfill that can ask for a GPU"
        live = cpu.queues[0].limit
        assert live is not None
        assert live * CYCLE_STEP_HOURS >= Settings().catchup_hours, "all can wait for a GPU"
        assert cpu.limit >= live + runs + 2, "the reconciler runs while they do"


def test_a_plain_deploy_keeps_the_number_of_gpus(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    with temporary_settings({PREFECT_API_URL: prefect_api}), connected() as client:
        for given, kept in ((4, 4), (None, 4), (1, 1), (None, 1)):
            assert apply_pools(client, "process", given)[1].limit == kept
            assert client.read_work_pool("gpu").concurrency_limit == kept
            queue = client.read_work_queue_by_name("backfill", work_pool_name="cpu")
            assert queue.concurrency_limit == max(2, kept)


def test_a_broken_deployment_file_is_refused_with_prefects_words(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments:\n- name: x\n  entrypoint: flows.orchestration.deployed.nothing\n")
    with pytest.raises(MosaicOpsError, match="nothing"):
        apply_deployments(file)


def test_without_a_server_nothing_is_started_in_secret() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(InputError, match="no Prefect server is named"),
        connected(),
    ):
        pass


def test_the_gate_shows_each_check_with_its_limit_and_a_picture() -> None:
    """As kept in an archive: refusals and warnings all, else the worst of each check."""
    limits = Limits(1.0, 2.0, "two is too many")
    found = [limits.judge("spread", name, value) for name, value in (("t", 0.5), ("u", 3.0))]
    verdict = Verdict((*found, unchecked("change", "no analysis before")))
    kept = Verdict.from_record(json.loads(json.dumps(verdict.as_record())))
    card = verdict_card("gate", "analysis of 2026-11-23T00Z", kept)
    assert card.title == "Gate: analysis of 2026-11-23T00Z: refuse"
    assert "| spread | refuse | u | 3 | 2 | two is too many |" in card.text
    assert "| change | unchecked |  | nan | nan | no analysis before |" in card.text
    assert "spread | t" not in card.text
    assert len(card.text.encode()) < MARKDOWN_LIMIT_BYTES
    shown = card.text.split("base64,")[1].rstrip(")")
    assert Image.open(io.BytesIO(base64.b64decode(shown))).format == "PNG"


def test_the_overview_fits_a_row_and_links_where_readers_go(tmp_path: Path) -> None:
    config = settings(tmp_path, public_address="https://forecasts.example.org/mosaic/")
    publish(config.published, NEWEST, members=4)
    history(NEWEST, config.receipts, 7.2)
    manifest = published_cycle(config.published, NEWEST)
    assert manifest is not None
    outcome = Outcome(NEWEST, "s3://bucket/run", made=True)
    gate = {NEWEST: Verdict((Limits(1.0, 2.0, "").judge("spread", "t", 1.5),))}
    figures = dict.fromkeys(("a", "b", "c", "d"), noisy_map())
    text = overview(outcome, manifest, gate, figures, config).text
    assert len(text.encode()) < MARKDOWN_LIMIT_BYTES
    assert text.count("](data:image/png;base64,") == 4
    parts = ("4 members to 24 h", "visible at T+7 h 12 min", "2026-11-23T00Z warn", "open_zarr")
    assert all(part in text for part in parts)
    link = "(https://forecasts.example.org/mosaic/index.html#cycle=20261123T00Z)"
    assert link in text
    unlinked = overview(outcome, manifest, {}, {}, settings(tmp_path)).text
    assert "](" not in unlinked


def test_the_overview_counts_healthy_members(tmp_path: Path) -> None:
    config = settings(tmp_path)
    publish(config.published, NEWEST, members=4, sick=["member 2: noise at +6 h"])
    manifest = published_cycle(config.published, NEWEST)
    assert manifest is not None
    outcome = Outcome(NEWEST, "s3://bucket/run", made=True)
    assert "3 healthy of 4 members to 24 h" in overview(outcome, manifest, {}, {}, config).text


@pytest.mark.parametrize("address", ["ftp://x", "javascript:alert(1)", "https://x/a)b", "x"])
def test_a_link_is_an_address_of_the_web(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="public_address"):
        settings(tmp_path, public_address=address)
