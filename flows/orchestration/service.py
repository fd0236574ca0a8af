"""Server and workers with the settings they need: what systemd, compose and a laptop start."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from flows.orchestration.server import QUIET
from mosaic_core.contract.errors import InputError

AUTHENTICATION = "PREFECT_SERVER_API_AUTH_STRING"
DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"

SERVER = {
    **QUIET,
    # With leases in memory a restart of the server kills healthy runs some minutes later.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}
WORKER = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # Backs off for up to eight minutes: a run outlives a restart of the server.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_WORKER_QUERY_SECONDS": "5",
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "mosaic_ops",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_command(
    host: str, port: int, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a server.

    InputError for a server that others reach and that asks for no password: whoever reaches the
    interface can run code on the workers.
    """
    if not is_loopback(host) and not environment.get(AUTHENTICATION):
        raise InputError(
            f"a server on {host} without a password can be used by everybody who reaches it",
            remedy=f"set {AUTHENTICATION}=user:password, or use --host 127.0.0.1",
        )
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", host, "--port", str(port)]
    return command, {**SERVER, **environment}


def worker_command(
    pool: str, kind: str, name: str | None, health_port: int | None, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a worker; with `health_port` it answers GET /health there."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    command += ["--type", kind, "--install-policy", "never", *(("--name", name) if name else ())]
    if health_port is None:
        return command, {**WORKER, **environment}
    health = {
        "PREFECT_WORKER_WEBSERVER_HOST": "0.0.0.0",
        "PREFECT_WORKER_WEBSERVER_PORT": str(health_port),
    }
    return [*command, "--with-healthcheck"], {**WORKER, **health, **environment}


def replace_process(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the command, so that signals and exit codes are its own."""
    sys.stdout.flush()
    os.execve(command[0], command, dict(environment))


def database_kind(environment: Mapping[str, str]) -> str:
    """Which database the server will use, without its password."""
    address = environment.get(DATABASE, "")
    if not address:
        home = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser()
        return f"SQLite in {home} (fine for one box with few runs; use PostgreSQL for more)"
    return address.split("@")[-1]
