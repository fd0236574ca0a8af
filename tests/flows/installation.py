"""A whole installation for tests: server, pools, deployments over toy stages, workers."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.processes import end

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass
class Installation:
    """Commands and workers run as processes with this environment."""

    api: str
    folder: Path
    environment: dict[str, str]
    toys: bool = True
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def at(cls, api: str, folder: Path, **settings: str) -> Installation:
        """With its data in `folder` and settings of its own."""
        environment = {
            **os.environ,
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(folder / "prefect-home"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_CLIENT_MAX_RETRIES": "8",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
            "MOSAIC_OPS_DATA_ROOT": str(folder / "data"),
            "MOSAIC_OPS_VARIANT": "mini",
            "MOSAIC_OPS_MEMBERS": "4",
            "MOSAIC_OPS_LEAD_HOURS": "24",
            "MOSAIC_OPS_MINIMUM_FREE_GB": "0",
            **settings,
        }
        return cls(api, folder, environment)

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`mosaic-ops ARGUMENTS`, with the toy stages in place unless this one has the real."""
        code = "from flows.cli.main import main; main()"
        code = f"import toy_flows; {code}" if self.toys else code
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def deploy(self) -> None:
        """The project's own prefect.yaml without its schedules, pointed at the toy flows."""
        text = (ROOT / "deploy" / "prefect.yaml").read_text()
        text = text.replace("active: true", "active: false")
        if self.toys:
            text = text.replace("flows.orchestration.deployed.", "toy_flows.")
        file = self.folder / "prefect.yaml"
        file.write_text(text)
        self.command("deploy", "--file", str(file))

    def start_worker(self, pool: str) -> subprocess.Popen[bytes]:
        """A process worker in a session of its own, so that it can be killed with its children."""
        name = f"{pool}-{len(self.workers)}"
        start = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
        worker = subprocess.Popen(
            [*start, "--pool", pool, "--name", name],
            env=self.environment,
            cwd=self.folder,
            stdout=(self.folder / f"worker-{name}.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """End every worker that still runs."""
        for worker in self.workers:
            end(worker)
        self.workers.clear()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the server's API."""
        answer = httpx.post(f"{self.api}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, flow: str = "forecast") -> list[dict[str, Any]]:
        """Runs of a flow, oldest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC", "limit": 200}
        found: list[dict[str, Any]] = self.post("/flow_runs/filter", body)
        return found

    def start(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment now; its id."""
        flow, name = deployment.split("/")
        found = httpx.get(f"{self.api}/deployments/name/{flow}/{name}", timeout=30).json()
        made = self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> str:
        """Name of a run's state."""
        return str(httpx.get(f"{self.api}/flow_runs/{run}", timeout=30).json()["state_name"])


def until(condition: Callable[[], Any], seconds: float = 90.0, what: str = "it") -> Any:
    """The first true value of `condition`."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


@contextmanager
def clock(folder: Path, start: str) -> Iterator[Callable[[str], None]]:
    """A simulated clock in a file; call the value with a time to set it."""
    path = folder / "clock"

    def set_to(moment: str) -> None:
        dt.datetime.fromisoformat(moment)
        path.write_text(moment)

    set_to(start)
    yield set_to
