"""The log for machines: a JSON object a line, with the cycle, stage and run it is about."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # set by Prefect in the process of a run

_subject: ContextVar[dict[str, str] | None] = ContextVar("subject", default=None)


@contextmanager
def about(**facts: str) -> Iterator[None]:
    """Lines logged inside carry these facts (cycle, stage)."""
    token = _subject.set({**(_subject.get() or {}), **facts})
    try:
        yield
    finally:
        _subject.reset(token)


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, host, process; cycle, stage, run and error when known."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        facts = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "process": os.getpid(),
            **(_subject.get() or {}),
        }
        if run := os.environ.get(RUN_VARIABLE):
            facts["run"] = run
        if record.exc_info:
            facts["error"] = self.formatException(record.exc_info)
        return json.dumps(facts, ensure_ascii=False)


def json_handler() -> logging.Handler:
    """Lines of JSON to the standard error stream."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    return handler
