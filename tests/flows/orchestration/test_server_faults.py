"""A server that cannot be used: what is said, and that nothing is half done."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.orchestration import vigil
from flows.orchestration.pools import apply_pools, attendance, workers_of
from flows.orchestration.runs import clock_skew, connected, refuse_skew
from flows.orchestration.server import local_server
from flows.progress import LogReporter
from flows.watch.alerts import records
from mosaic_core.contract.errors import InputError
from tests.flows.database import binaries, postgres, short_folder
from tests.flows.installation import until

pytestmark = pytest.mark.e2e

PASSWORD = "ops:hunter2"
ONCE = {"PREFECT_CLIENT_MAX_RETRIES": "0"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a password and its SQLite database."""
    home = tmp_path_factory.mktemp("guarded")
    secrets = {
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_DATABASE_TIMEOUT": "2",
    }
    with local_server(home, secrets) as api:
        yield api, home / "prefect.db"


def command(api: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()", *words],
        env={**os.environ, "PREFECT_API_URL": api, **ONCE, **environment},
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip


@pytest.mark.parametrize("password", ["", "ops:wrong"])
@pytest.mark.parametrize("words", [("workers",), ("reconcile",), ("deploy",), ("worker", "cpu")])
def test_without_the_password_nothing_is_done(
    guarded: tuple[str, Path], words: tuple[str, ...], password: str, tmp_path: Path
) -> None:
    said = command(
        guarded[0], *words, PREFECT_API_AUTH_STRING=password, MOSAIC_OPS_DATA_ROOT=str(tmp_path)
    )
    assert said.returncode == 2, said.stderr
    assert "wants another password" in said.stderr
    assert "PREFECT_API_AUTH_STRING" in said.stderr
    assert "hunter2" not in said.stdout + said.stderr
    assert httpx.post(f"{guarded[0]}/work_pools/filter", json={}, timeout=30).status_code == 401


def test_pools_that_are_not_there_and_pools_without_workers_are_said(
    guarded: tuple[str, Path],
) -> None:
    api, _ = guarded
    missing = command(api, "workers", PREFECT_API_AUTH_STRING=PASSWORD)
    assert missing.returncode == 1
    assert "no work pool cpu" in missing.stderr
    assert "mosaic-ops deploy" in missing.stderr
    patient = {"PREFECT_CLIENT_MAX_RETRIES": "8"}  # SQLite answers 503 while it is busy
    deployed = command(api, "deploy", PREFECT_API_AUTH_STRING=PASSWORD, **patient)
    assert deployed.returncode == 0, deployed.stderr
    nobody = command(api, "workers", PREFECT_API_AUTH_STRING=PASSWORD)
    assert nobody.returncode == 1
    assert "pool gpu: NOBODY" in nobody.stdout
    assert "mosaic-ops worker POOL" in nobody.stderr


@contextmanager
def client_of(api: str) -> Iterator[SyncPrefectClient]:
    known = {PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: PASSWORD}
    with temporary_settings(known), connected() as client:
        yield client


class Said(LogReporter):
    """Keeps the facts."""

    def __init__(self) -> None:
        self.facts: list[str] = []

    def say(self, fact: str) -> None:
        self.facts.append(fact)


def test_a_run_that_no_worker_can_take_says_which_pool_wants_one(
    guarded: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "NO_WORKER_SECONDS", 0.2)
    said = Said()
    with client_of(guarded[0]) as client:
        apply_pools(client, "process", gpus=1)
        asked = waiting_run(client, "gpu")
        watch = vigil.Vigil(asked, lambda: False, said)
        until(lambda: watch.look(client) and said.facts, 30, "the word")
        assert "pool gpu has no worker" in said.facts[0]
        assert "mosaic-ops worker gpu" in said.facts[0]
        client.send_worker_heartbeat("gpu", "gpu-box", heartbeat_interval_seconds=1)
        said.facts.clear()
        busy = vigil.Vigil(asked, lambda: False, said)
        give_up = time.monotonic() + 1.5
        while time.monotonic() < give_up:
            busy.look(client)
        assert not said.facts, "it stands in line: a worker is there"
        until(lambda: not workers_of(client, "gpu").online, 90, "the end of the worker")
        seen = {each.pool: each for each in attendance(client, dt.datetime.now(dt.UTC))}
        client.delete_flow_run(asked)
    assert (seen["gpu"].last, seen["gpu"].waiting, seen["gpu"].is_missed) == ("gpu-box", 1, True)


def test_an_unfit_machine_takes_no_runs(guarded: tuple[str, Path], tmp_path: Path) -> None:
    """Its canary fails, for want of weights: it never becomes a worker, and says so."""
    with client_of(guarded[0]) as client:
        apply_pools(client, "process", gpus=1)
        before = client.read_workers_for_work_pool("gpu")
        said = command(
            guarded[0], "worker", "gpu",
            PREFECT_API_AUTH_STRING=PASSWORD, MOSAIC_OPS_DATA_ROOT=str(tmp_path),
        )  # fmt: skip
        assert client.read_workers_for_work_pool("gpu") == before
    assert said.returncode == 6, said.stderr
    assert "not fit to run the model" in said.stderr
    assert [record.alert.kind for record in records(tmp_path / "alerts")] == ["canary"]


def waiting_run(client: SyncPrefectClient, pool: str) -> UUID:
    """A run of a deployment in a pool."""

    @flow(name="waits")
    def waits() -> None:
        pass

    deployment = client.create_deployment(
        client.create_flow(waits), name="there", work_pool_name=pool
    )
    return client.create_flow_run_from_deployment(deployment).id


def test_a_locked_database_is_said(guarded: tuple[str, Path], tmp_path: Path) -> None:
    """Another program holds the file: what must be written cannot be."""
    api, database = guarded
    with closing(sqlite3.connect(database, isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        said = command(api, "deploy", PREFECT_API_AUTH_STRING=PASSWORD)
        held.execute("ROLLBACK")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "its database is locked or gone" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_database_that_is_gone_is_said(tmp_path: Path) -> None:
    """PostgreSQL stops under the server; on a machine without it, SQLite's file is destroyed."""
    home = tmp_path / "server"
    with ExitStack() as outer:
        if binaries() is None:
            api = outer.enter_context(local_server(home))
            (home / "prefect.db").write_bytes(b"no database" * 1000)
        else:
            folder = outer.enter_context(short_folder())
            with postgres(folder / "pg") as address:
                extra = {"PREFECT_API_DATABASE_CONNECTION_URL": address}
                api = outer.enter_context(local_server(home, extra))
        said = command(api, "workers")
    assert said.returncode == 1, said.stdout + said.stderr
    assert "its database is locked or gone" in said.stderr
    assert "pg_isready" in said.stderr


def test_clocks_that_differ_are_said(guarded: tuple[str, Path]) -> None:
    now = dt.datetime.now(dt.UTC)
    with temporary_settings({PREFECT_API_URL: guarded[0]}):
        assert abs(clock_skew(now)) < dt.timedelta(seconds=30)
        refuse_skew(now)
        with pytest.raises(InputError, match=r"36\d\d s ahead of the Prefect server"):
            refuse_skew(now + dt.timedelta(hours=1, seconds=20))
        with pytest.raises(InputError, match="behind"):
            refuse_skew(now - dt.timedelta(hours=1))
