"""What each stage of each cycle did, as files: the truth behind the status page.

`<data root>/receipts/<cycle>/<stage>.json` holds the last attempt of that stage. Prefect's states
are for display; these survive its database.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.logs import about
from flows.progress import Advance, Reporter
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.files import write_json_atomic

Status = Literal["running", "done", "failed"]

_log = logging.getLogger("mosaic_ops")


class Receipt(BaseModel):
    """The last attempt of one stage of one cycle; `reason` says why it failed, `cpu_seconds` what
    its process took of the processors meanwhile. Fields of a later version are ignored."""

    model_config = ConfigDict(frozen=True)

    cycle: str
    stage: str
    status: Status
    started: dt.datetime
    finished: dt.datetime | None = None
    cpu_seconds: float | None = None
    attempt: int = 1
    host: str
    process: int
    reason: str | None = None

    def write(self, folder: Path) -> None:
        """Store as the last attempt of this stage."""
        path = folder / self.cycle / f"{self.stage}.json"
        write_json_atomic(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one receipt; DataError when the file is damaged or cannot be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            fault = f"not a receipt: {error.error_count()} faults"
        except OSError as error:
            fault = f"cannot read the receipt: {error.strerror}"
        raise DataError(fault, where=str(path), remedy="nothing: the next run writes it again")

    def ended(self, status: Status, cpu_seconds: float, reason: str | None = None) -> Self:
        """This attempt, finished now."""
        update = {"status": status, "finished": _now(), "reason": reason}
        return self.model_copy(update={**update, "cpu_seconds": round(cpu_seconds, 2)})

    @property
    def seconds(self) -> float | None:
        """From start to end; None before the end."""
        return (self.finished - self.started).total_seconds() if self.finished else None


def receipts_of(cycle: Cycle, folder: Path) -> tuple[Receipt, ...]:
    """Readable receipts of one cycle, in the order in which the stages started."""
    found = map(_readable, (folder / cycle.id).glob("*.json"))
    return tuple(sorted(filter(None, found), key=lambda receipt: receipt.started))


def _readable(path: Path) -> Receipt | None:
    """A receipt, or a warning that names it: the display goes on without."""
    try:
        return Receipt.read(path)
    except DataError as error:
        _log.warning("left out: %s", error)
        return None


@contextmanager
def recorded(
    stage: str, cycle: Cycle, folder: Path, report: Reporter, title: str
) -> Iterator[Advance]:
    """Show a stage while it runs and keep its receipt, whether it ends well or not."""
    receipt, before = _started(stage, cycle, folder), time.process_time()
    receipt.write(folder)
    try:
        with about(cycle=cycle.label, stage=stage), report.stage(title) as advance:
            yield advance
    except BaseException as error:
        reason = str(error) or type(error).__name__
        receipt.ended("failed", time.process_time() - before, reason).write(folder)
        raise
    receipt.ended("done", time.process_time() - before).write(folder)


def _started(stage: str, cycle: Cycle, folder: Path) -> Receipt:
    path = folder / cycle.id / f"{stage}.json"
    last = _readable(path) if path.exists() else None
    if last is None and path.exists():
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        _log.warning("the last attempt is not known, its receipt is now %s", aside)
    attempt = last.attempt + 1 if last else 1
    return Receipt(
        cycle=cycle.id,
        stage=stage,
        status="running",
        started=_now(),
        attempt=attempt,
        host=socket.gethostname(),
        process=os.getpid(),
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
