"""Each alert is raised once, delivered until somebody has it, and over when it is over."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner
from pydantic import ValidationError

from flows.cli.operations import alerts, status
from flows.orchestration.server import free_port
from flows.settings import load_settings
from flows.watch.alerts import Alert, mute, records, sender, update_alerts
from mosaic_core.contract.errors import InputError, MosaicOpsError
from tests.flows.receiver import receiver
from tests.flows.records import NOW, settings

LATE = Alert(kind="late", subject="2026-11-23T00Z", cause="no file", command="mosaic-ops status")
KINDS = ["late", "failed"]


class Inbox:
    """What was delivered; refuses while `broken`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.broken = False

    def __call__(self, text: str, fields: dict[str, str]) -> None:  # noqa: ARG002
        if self.broken:
            raise MosaicOpsError("the inbox is full")
        self.texts.append(text)


def later(hours: float) -> dt.datetime:
    return NOW + dt.timedelta(hours=hours)


def test_an_alert_is_delivered_once_and_its_end_once(tmp_path: Path) -> None:
    inbox = Inbox()
    assert update_alerts([LATE], tmp_path, NOW, inbox, KINDS) == (LATE,)
    for hour in (1, 2):
        assert not update_alerts([LATE], tmp_path, later(hour), inbox, KINDS)
    assert inbox.texts == [LATE.text]
    for hour in (3, 4):
        update_alerts([], tmp_path, later(hour), inbox, KINDS)
    assert inbox.texts == [LATE.text, "OVER late 2026-11-23T00Z"]
    assert update_alerts([LATE], tmp_path, later(5), inbox, KINDS) == (LATE,)


def test_passes_at_the_same_time_tell_it_once(tmp_path: Path) -> None:
    told: list[str] = []

    def slowly(text: str, fields: dict[str, str]) -> None:
        time.sleep(0.05)
        told.append(text)

    with ThreadPoolExecutor(4) as pool:
        passes = [
            pool.submit(update_alerts, [LATE], tmp_path, NOW, slowly, KINDS) for _ in range(4)
        ]
    assert [len(each.result()) for each in passes].count(1) == 1
    assert told == [LATE.text]


def test_whoever_looked_earlier_does_not_end_what_was_raised_since(tmp_path: Path) -> None:
    inbox = Inbox()
    update_alerts([LATE], tmp_path, later(1), inbox, KINDS)
    update_alerts([], tmp_path, NOW, inbox, KINDS)
    assert inbox.texts == [LATE.text]
    assert records(tmp_path)[0].over is None


def test_text_names_cycle_stage_cause_and_command() -> None:
    text = LATE.model_copy(update={"stage": "wait"}).text
    assert text.splitlines() == [
        "LATE 2026-11-23T00Z, stage wait", "no file", "next: mosaic-ops status",
    ]  # fmt: skip


def test_delivery_is_tried_until_it_works(tmp_path: Path) -> None:
    inbox = Inbox()
    inbox.broken = True
    update_alerts([LATE], tmp_path, NOW, inbox, KINDS)
    assert records(tmp_path)[0].fault == "the inbox is full"
    inbox.broken = False
    update_alerts([LATE], tmp_path, later(1), inbox, KINDS)
    update_alerts([LATE], tmp_path, later(2), inbox, KINDS)
    assert inbox.texts == [LATE.text]
    assert records(tmp_path)[0].fault is None


def test_a_memory_of_a_later_version_is_read(tmp_path: Path) -> None:
    update_alerts([LATE], tmp_path, NOW, Inbox(), KINDS)
    path = tmp_path / f"{LATE.key}.json"
    path.write_text(path.read_text().replace('"raised"', '"seen_by": "ops", "raised"'))
    assert not update_alerts([LATE], tmp_path, later(1), Inbox(), KINDS)


def test_a_muted_alert_comes_back_when_the_silence_runs_out(tmp_path: Path) -> None:
    inbox = Inbox()
    update_alerts([LATE], tmp_path, NOW, inbox, KINDS)
    mute(LATE.key, later(3), tmp_path)
    update_alerts([LATE], tmp_path, later(1), inbox, KINDS)
    assert len(inbox.texts) == 1
    update_alerts([LATE], tmp_path, later(4), inbox, KINDS)
    assert inbox.texts == [LATE.text] * 2


def test_a_silence_says_until_which_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(tmp_path))
    update_alerts([LATE], tmp_path / "alerts", NOW, Inbox(), KINDS)
    said = CliRunner().invoke(alerts, ["mute", LATE.key, "--hours", "48"]).output
    until = said.split()[-1]
    assert dt.datetime.strptime(until, "%Y-%m-%dT%H:%MZ")
    assert f"muted until {until}" in CliRunner().invoke(alerts, ["list"]).output


def test_an_unknown_alert_cannot_be_muted(tmp_path: Path) -> None:
    update_alerts([LATE], tmp_path, NOW, Inbox(), KINDS)
    with pytest.raises(InputError, match="no alert") as refused:
        mute("late-2020", later(1), tmp_path)
    assert LATE.key in refused.value.remedy


def test_alerts_of_another_kind_are_not_ended(tmp_path: Path) -> None:
    deadman = LATE.model_copy(update={"kind": "deadman"})
    update_alerts([deadman], tmp_path, NOW, Inbox(), ["deadman"])
    update_alerts([], tmp_path, later(1), Inbox(), KINDS)
    assert records(tmp_path)[0].over is None


def test_a_damaged_memory_raises_the_alert_anew(tmp_path: Path) -> None:
    inbox = Inbox()
    (tmp_path / f"{LATE.key}.json").write_text("{")
    assert update_alerts([LATE], tmp_path, NOW, inbox, KINDS) == (LATE,)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A real receiver: its address, and the JSON it was sent; /broken answers 500."""
    with receiver() as found:
        yield found


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[EmailMessage]]]:
    """A real mail server on this machine: its port, and what it was sent."""
    received: list[EmailMessage] = []

    class Handler:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
            message = message_from_bytes(envelope.content, policy=default)
            assert isinstance(message, EmailMessage)
            received.append(message)
            return "250 kept"

    server = Controller(Handler(), hostname="127.0.0.1", port=free_port())
    server.start()
    yield server.port, received
    server.stop()


def test_the_webhook_gets_text_and_fields(
    tmp_path: Path, webhook: tuple[str, list[dict[str, str]]]
) -> None:
    address, received = webhook
    (tmp_path / "secret").write_text(f"{address}/T0/abc\n")
    config = settings(tmp_path, alert_webhook_file=tmp_path / "secret")
    update_alerts([LATE], config.alerts, NOW, sender(config), KINDS)
    assert received[0]["text"] == LATE.text
    assert received[0]["command"] == "mosaic-ops status"
    assert received[0]["key"] == LATE.key


def test_a_mail_for_the_alert_and_one_for_its_end(
    tmp_path: Path, mailbox: tuple[int, list[EmailMessage]]
) -> None:
    port, received = mailbox
    query = "from=ops@example.org&to=oncall@example.org&mode=insecure"
    config = settings(tmp_path, alert_webhook=f"mailto://127.0.0.1:{port}?{query}")
    for hour, current in enumerate(([LATE], [LATE], [], [])):
        update_alerts(current, config.alerts, later(hour), sender(config), KINDS)
    texts = [message.get_body(("plain", "html")).get_content() for message in received]  # type: ignore[union-attr]
    assert len(texts) == 2
    assert "LATE 2026-11-23T00Z" in texts[0]
    assert "mosaic-ops status" in texts[0]
    assert "OVER late 2026-11-23T00Z" in texts[1]
    assert {message["To"] for message in received} == {"oncall@example.org"}


def test_a_mail_server_that_is_down_is_asked_again(
    tmp_path: Path, mailbox: tuple[int, list[EmailMessage]]
) -> None:
    port, received = mailbox
    query = "from=ops@example.org&to=oncall@example.org&mode=insecure"
    down = settings(tmp_path, alert_webhook=f"mailto://127.0.0.1:{free_port()}?{query}")
    update_alerts([LATE], down.alerts, NOW, sender(down), KINDS)
    assert not received
    up = settings(tmp_path, alert_webhook=f"mailto://127.0.0.1:{port}?{query}")
    update_alerts([LATE], up.alerts, later(1), sender(up), KINDS)
    assert len(received) == 1


NOBODYS = [
    "carrier-pigeon://hunter2",
    "hooks.example.org/hunter2",
    "https:///hunter2",
    "http://a b",
]


@pytest.mark.parametrize("address", NOBODYS)
def test_an_address_that_no_service_takes_is_refused_at_the_start(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MOSAIC_OPS_ALERT_WEBHOOK", address)
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError, match="no service") as refused:
        load_settings()
    assert "alert_webhook" in str(refused.value)
    assert "hunter2" not in str(refused.value) + caplog.text
    with pytest.raises(ValidationError) as fault:
        settings(Path("unused"), alert_webhook=address)
    assert "hunter2" not in str(fault.value)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_address_is_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So manifests of secrets have it: alerts stand in the log and in the memory."""
    monkeypatch.setenv("MOSAIC_OPS_ALERT_WEBHOOK", text)
    monkeypatch.setenv("MOSAIC_OPS_ALERT_WEBHOOK_FILE", text)
    config = load_settings(data_root=tmp_path)
    assert (config.alert_webhook, config.alert_webhook_file) == (None, None)
    (tmp_path / "secret").write_text(text)
    mounted = settings(tmp_path, alert_webhook_file=tmp_path / "secret")
    for hour, each in enumerate((config, mounted)):
        update_alerts([LATE], each.alerts, later(hour), sender(each), KINDS)
        assert records(each.alerts)[0].fault is None
    assert "LATE 2026-11-23T00Z" in caplog.text


FAULTS = {"carrier-pigeon://hunter2": "no service takes", "\0": "no service takes"}


@pytest.mark.parametrize("secret", [*FAULTS, None])
def test_an_alert_that_cannot_be_delivered_is_kept_and_says_why(
    secret: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The address in the file is mistyped, or the file is not there."""
    if secret is not None:
        (tmp_path / "secret").write_text(secret)
    config = settings(tmp_path, alert_webhook_file=tmp_path / "secret")
    for hour in (0, 1):
        raised = update_alerts([LATE], config.alerts, later(hour), sender(config), KINDS)
        assert raised == ((LATE,) if hour == 0 else ())
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(tmp_path))
    said = CliRunner().invoke(alerts, ["list"]).output
    assert f"NOT DELIVERED: {FAULTS[secret] if secret else config.alert_webhook_file}" in said
    table = CliRunner().invoke(status, []).output
    assert "1 alerts were not delivered" in table
    assert "hunter2" not in said + table + caplog.text
    update_alerts([], config.alerts, later(2), sender(config), KINDS)
    assert "not delivered" not in CliRunner().invoke(status, []).output


def test_whatever_a_service_does_the_memory_is_kept(tmp_path: Path) -> None:
    def broken(text: str, fields: dict[str, str]) -> None:
        raise KeyError(text, fields)

    update_alerts([LATE], tmp_path, NOW, broken, KINDS)
    assert records(tmp_path)[0].fault == "KeyError"


@pytest.mark.parametrize("path", ["/broken/hunter2", ":1/hunter2"])
def test_a_webhook_that_fails_is_no_error_and_its_secret_is_not_logged(
    path: str,
    tmp_path: Path,
    webhook: tuple[str, list[dict[str, str]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = webhook[0] + path if path.startswith("/") else "http://127.0.0.1" + path
    config = settings(tmp_path, alert_webhook=address)
    with caplog.at_level(logging.DEBUG):
        update_alerts([LATE], config.alerts, NOW, sender(config), KINDS)
    assert "not delivered" in caplog.text
    kept = "".join(each.read_text() for each in config.alerts.iterdir())
    assert "hunter2" not in caplog.text + kept + repr(config) + str(config.model_dump())
    assert records(config.alerts)[0].delivered is None


def test_without_a_webhook_alerts_stand_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path)
    with caplog.at_level(logging.WARNING):
        update_alerts([LATE], config.alerts, NOW, sender(config), KINDS)
    assert "LATE 2026-11-23T00Z" in caplog.text
