"""A Prefect server of one's own on this machine: for the demo, a laptop, the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from mosaic_core.contract.errors import MosaicOpsError

START_SECONDS = 180.0  # a fresh SQLite database takes 18 s when idle, over a minute under load
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The newer interface calls an outside host from the browser even with analytics off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # The page asks the server it came from: the default names port 4200 of the browser's machine.
    "PREFECT_SERVER_UI_API_URL": "/api",
    "PREFECT_CLI_PROMPT": "false",
}


def free_port() -> int:
    """A TCP port on the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def local_server(home: Path, extra: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server with its database in `home`; yields the API address, stops it on leaving.

    `extra` adds environment variables. Raises MosaicOpsError with the end of the server's log
    when it does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {**os.environ, **QUIET, "PREFECT_HOME": str(home), **(extra or {})}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    address = f"http://127.0.0.1:{port}/api"
    try:
        _wait_until_healthy(address, process, log)
        yield address
    finally:
        _stop(process)


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    raise MosaicOpsError(
        f"the Prefect server did not start:\n{tail}",
        where=str(log),
        remedy="install the pinned versions (constraints.txt), or run without --prefect",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
