"""Alerts: each raised once, delivered until somebody has it, quiet while muted, gone when over.

`<data root>/alerts/<key>.json` is the memory; it survives the server and the workers.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.settings import Settings
from flows.watch.delivery import deliver
from mosaic_core.contract.errors import InputError, MosaicOpsError
from mosaic_core.contract.files import write_json_atomic

_log = logging.getLogger("mosaic_ops")


class Alert(BaseModel):
    """What an engineer is told: which cycle and stage, why, and the command to type.

    `kind` and `subject` (a cycle, a pool, a disk) name the alert: the same pair is one alert.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    subject: str
    cause: str
    command: str
    stage: str | None = None

    @property
    def key(self) -> str:
        """Name of its file, and what `alerts mute` takes."""
        return f"{self.kind}-{self.subject}".replace("/", "-")

    @property
    def text(self) -> str:
        """Three lines for a chat or a mail."""
        stage = f", stage {self.stage}" if self.stage else ""
        return f"{self.kind.upper()} {self.subject}{stage}\n{self.cause}\nnext: {self.command}"


class Record(BaseModel):
    """An alert in the memory: since when, whether delivered, muted until, over since; `fault`
    says why the last delivery failed."""

    model_config = ConfigDict(frozen=True)

    alert: Alert
    raised: dt.datetime
    delivered: dt.datetime | None = None
    fault: str | None = None
    muted_until: dt.datetime | None = None
    over: dt.datetime | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record of a file; None when there is none or it is damaged (it is raised anew)."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, folder: Path) -> None:
        """Remember."""
        write_json_atomic(folder / f"{self.alert.key}.json", self.model_dump(mode="json"))

    def is_muted(self, now: dt.datetime) -> bool:
        """Whether somebody asked for silence that has not run out."""
        return self.muted_until is not None and now < self.muted_until


Send = Callable[[str, dict[str, str]], None]
"""Delivers a text and its fields; MosaicOpsError says why it could not."""


def update_alerts(
    current: Iterable[Alert],
    folder: Path,
    now: dt.datetime,
    send: Send,
    kinds: Iterable[str],
    subject: str | None = None,
) -> tuple[Alert, ...]:
    """Bring the memory to the alerts that hold now; the ones newly raised.

    An alert of `kinds` (about `subject`, if given) that no longer holds is over and said to be so,
    unless it was raised after `now`, by somebody who looked later. Delivery is tried again at
    every call until it works; a muted alert is delivered when the silence runs out and it still
    holds. One process at a time does this: two that see the same tell it once.
    """
    holding = {alert.key: alert for alert in current}
    with _alone(folder):
        raised = [alert for alert in holding.values() if _hold(alert, folder, now, send)]
        for record in records(folder):
            alert = record.alert
            ours = alert.kind in set(kinds) and subject in {None, alert.subject}
            holds = alert.key in holding or record.raised > now
            if ours and record.over is None and not holds:
                _end(record, folder, now, send)
    return tuple(raised)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process that changes the memory; the kernel lets go when it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hold(alert: Alert, folder: Path, now: dt.datetime, send: Send) -> bool:
    """Deliver once; True when the alert is new."""
    record = Record.read(folder / f"{alert.key}.json")
    new = record is None or record.over is not None
    if record is None or new:
        muted = record.muted_until if record else None
        record = Record(alert=alert, raised=now, muted_until=muted)
        _log.warning("alert %s", alert.text.replace("\n", " | "))
    if record.delivered is None and not record.is_muted(now):
        fault = _fault_of(send, alert.text, _fields(alert))
        delivered = None if fault else now
        record = record.model_copy(update={"delivered": delivered, "fault": fault})
    record.write(folder)
    return new


def _fault_of(send: Send, text: str, fields: dict[str, str]) -> str | None:
    """Deliver; why that failed, None when it worked. The memory is kept whatever a service does."""
    try:
        send(text, fields)
    except MosaicOpsError as error:
        fault = " ".join(str(error).split())
    except Exception as error:  # noqa: BLE001 - its words may hold the address, a secret
        fault = type(error).__name__
    else:
        return None
    _log.warning("the alert was not delivered: %s", fault)
    return fault


def _end(record: Record, folder: Path, now: dt.datetime, send: Send) -> None:
    if record.delivered is not None and not record.is_muted(now):
        fields = {**_fields(record.alert), "state": "over"}
        _fault_of(send, f"OVER {record.alert.kind} {record.alert.subject}", fields)
    _log.info("alert over: %s", record.alert.key)
    record.model_copy(update={"over": now}).write(folder)


def records(folder: Path) -> tuple[Record, ...]:
    """Everything remembered, oldest first."""
    found = (Record.read(path) for path in folder.glob("*.json"))
    return tuple(sorted(filter(None, found), key=lambda record: record.raised))


def mute(key: str, until: dt.datetime, folder: Path) -> Record:
    """Silence an alert until then; InputError names the alerts there are."""
    with _alone(folder):
        return _muted(key, until, folder)


def _muted(key: str, until: dt.datetime, folder: Path) -> Record:
    record = Record.read(folder / f"{key}.json")
    if record is None:
        known = ", ".join(record.alert.key for record in records(folder)) or "none"
        raise InputError(f"no alert {key!r}", remedy=f"alerts so far: {known}")
    muted = record.model_copy(update={"muted_until": until, "delivered": None})
    muted.write(folder)
    return muted


def sender(settings: Settings) -> Send:
    """Delivery to the webhook of the settings; without one, alerts stand in the log only."""

    def send(text: str, fields: dict[str, str]) -> None:
        address = webhook(settings)
        if address is not None:
            deliver(address, text, fields)

    return send


def webhook(settings: Settings) -> str | None:
    """The address alerts go to, from the environment or a mounted file; never logged.

    None when neither says one. InputError for a file that cannot be read.
    """
    if settings.alert_webhook is not None:
        return settings.alert_webhook.get_secret_value()
    if settings.alert_webhook_file is None:
        return None
    try:
        return settings.alert_webhook_file.read_text().strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the address of the alert webhook: {_words(error)}",
            where=str(settings.alert_webhook_file),
            remedy="mount the file, or set MOSAIC_OPS_ALERT_WEBHOOK",
        ) from None


def _words(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "it is no text"


def undelivered(folder: Path) -> tuple[Record, ...]:
    """The alerts that hold and that nobody was told of, because delivery failed."""
    return tuple(r for r in records(folder) if r.over is None and r.fault is not None)


def _fields(alert: Alert) -> dict[str, str]:
    known = {**alert.model_dump(exclude_none=True), "key": alert.key, "host": os.uname().nodename}
    return {name: str(value) for name, value in known.items()}
