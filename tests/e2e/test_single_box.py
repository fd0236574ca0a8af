"""The runbook's commands for one box, as they stand there: to a first published cycle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from flows.demo import CYCLE, NOTICE, make_weights
from flows.orchestration.server import free_port
from flows.progress import LogReporter
from ingest.synthetic.mirror import Mirror
from tests.flows.installation import until
from tests.processes import end


class Box:
    """A machine: its environment file, and commands typed on it."""

    def __init__(self, folder: Path, mirror: str) -> None:
        self.folder, self.port = folder, free_port()
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_API_AUTH_STRING": "ops:hunter2",
            "PREFECT_API_AUTH_STRING": "ops:hunter2",
            "MOSAIC_OPS_ALERT_WEBHOOK": "http://127.0.0.1:9/hunter2",
            "AWS_SECRET_ACCESS_KEY": "hunter2-of-the-bucket",
            "MOSAIC_OPS_DATA_ROOT": str(folder / "data"),
            "MOSAIC_OPS_VARIANT": "mini",
            "MOSAIC_OPS_MEMBERS": "2",
            "MOSAIC_OPS_LEAD_HOURS": "12",
            "MOSAIC_OPS_MIRRORS": f"made-up={mirror}",
            "MOSAIC_OPS_NOTICE": NOTICE,
            "MOSAIC_OPS_MINIMUM_FREE_GB": "1000000",  # an alert, so that the webhook is used
            "MOSAIC_OPS_CATCHUP_HOURS": "6",
        }

    def _words(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", "from flows.cli.main import main; main()", *words]

    def type(self, *words: str) -> str:
        """A command that ends well; what it says."""
        done = subprocess.run(
            self._words(words), env=self.environment, cwd=self.folder,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def terminal(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that stays, in a terminal of its own; its output is kept."""
        with (self.folder / f"{'-'.join(words[:2])}.log").open("wb") as log:
            process = subprocess.Popen(
                self._words(words), env=self.environment, cwd=self.folder,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
        finally:
            end(process)

    def ask(self, path: str, **body: object) -> list[dict[str, object]]:
        answer = httpx.post(
            self.environment["PREFECT_API_URL"] + path,
            json=body, auth=("ops", "hunter2"), timeout=30,
        )  # fmt: skip
        found: list[dict[str, object]] = answer.raise_for_status().json()
        return found


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.e2e
def test_from_four_terminals_to_a_published_cycle(tmp_path: Path, analyses: Path) -> None:
    with Mirror(analyses) as mirror, ExitStack() as terminals:
        box = Box(tmp_path, mirror.url)
        make_weights(tmp_path / "data" / "weights", LogReporter())
        terminals.enter_context(box.terminal("server", "--port", str(box.port)))
        until(lambda: answers(box.port, "/api/health"), 180, "the server")
        assert "next: mosaic-ops worker" in box.type("deploy")
        ports = {pool: free_port() for pool in ("cpu", "gpu")}
        for pool, port in ports.items():
            terminals.enter_context(box.terminal("worker", pool, "--health-port", str(port)))
        for pool, port in ports.items():
            until(lambda at=port: answers(at, "/health"), 180, f"the {pool} worker")
        live = next(d for d in box.ask("/deployments/filter") if d["name"] == "live")
        create = f"/deployments/{live['id']}/create_flow_run"
        box.ask(create, parameters={"cycle": CYCLE.label})
        published = tmp_path / "data" / "published" / "latest.json"
        until(published.exists, 300, "the publication")
        runs = lambda: [r for r in box.ask("/flow_runs/filter") if r["state_name"] == "Published"]  # noqa: E731
        until(runs, 60, "the end of the run")
        box.type("reconcile")  # unless the schedule's own pass came first
        assert "disk-data: since" in box.type("alerts", "list")
        assert "golden recorded" in (tmp_path / "worker-gpu.log").read_text()
        assert "NOBODY" not in box.type("workers")
        told = str([box.ask(f"/{what}/filter") for what in ("artifacts", "logs", "flow_runs")])
    assert "hunter2" not in told
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and holds(path, b"hunter2")]
    assert not leaks, "a secret was written down"


def holds(path: Path, secret: bytes) -> bool:
    """Logs, receipts, manifests, attributes, Prefect's database: whatever a file is."""
    return secret in path.read_bytes()
