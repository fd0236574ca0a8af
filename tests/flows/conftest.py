"""One Prefect server for all tests of this folder: starting one costs 10 to 60 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flows.orchestration.server import local_server
from tests.flows.database import binaries, postgres, short_folder

SERVICES = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
}


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Address of a real server, on PostgreSQL where that is installed, else on SQLite."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        extra = dict(SERVICES)
        if binaries() is not None:
            address = stack.enter_context(postgres(folder / "pg"))
            extra["PREFECT_API_DATABASE_CONNECTION_URL"] = address
        yield stack.enter_context(local_server(folder / "server", extra))
