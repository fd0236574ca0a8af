"""One Prefect server for all tests of this folder: starting one costs 10 to 60 seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.orchestration.server import local_server
from tests.flows.database import binaries, postgres

SERVICES = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
}


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Address of a real server, on PostgreSQL where that is installed, else on SQLite.

    The folder is short-lived and short-named: sockets have a limit of 107 characters.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mops")))
        folder.chmod(0o755)
        extra = dict(SERVICES)
        if binaries() is not None:
            address = stack.enter_context(postgres(folder / "pg"))
            extra["PREFECT_API_DATABASE_CONNECTION_URL"] = address
        yield stack.enter_context(local_server(folder / "server", extra))
