"""Sixteen scheduled cycles with everything that goes wrong, on a real server with real workers.

The stages are toys (milliseconds); server, workers, processes, signals, database and locks are
real. Hours pass on a simulated clock: before each cycle it is set to the schedule's time, and
after it a quarter of an hour further for each pass of the reconciler.

    python -m tests.bench.four_days            the table, and results/four_days.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from flows.orchestration.server import QUIET, free_port
from flows.settings import Settings
from flows.timetable import due_cycle
from mosaic_core.contract.cycle import Cycle
from tests.flows import toy_stages
from tests.flows.database import binaries, postgres
from tests.flows.installation import Installation, until
from tests.flows.receiver import receiver

RESULTS = Path(__file__).resolve().parent / "results" / "four_days.json"
CYCLES = 16
REFUSED = f"{toy_stages.REFUSED}3 of 82 fields are outside their range"


class Server:
    """A Prefect server that can be killed and started again on its port."""

    def __init__(self, folder: Path, database: str | None) -> None:
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self._environment = {**os.environ, **QUIET, "PREFECT_HOME": str(folder)}
        if database:
            self._environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
        self._log = (folder.parent / "server.log").open("ab")
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)],
            env=self._environment, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        until(self._answers, 180, "the server")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.api}/health", timeout=5).status_code == 200
        return False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL of the server and its children."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class FourDays:
    """The driver: it plays the schedule, the supervisor of the services, and the bad luck."""

    def __init__(
        self,
        installed: Installation,
        server: Server,
        settings: Settings,
        delivered: list[dict[str, str]],
    ) -> None:
        self.installed, self.server, self.settings = installed, server, settings
        self.delivered = delivered
        self.first = due_cycle(dt.datetime.now(dt.UTC)).shift(6)
        self.rows: list[dict[str, Any]] = []
        toy_stages.offer(settings, *(self.first.shift(-6 * back) for back in range(1, 40)))

    def set_clock(self, cycle: Cycle, hours: float) -> None:
        """So many hours after the cycle's initial time."""
        moment = cycle.datetime + dt.timedelta(hours=hours)
        (self.installed.folder / "clock").write_text(moment.isoformat())

    def reconcile(self) -> None:
        """One scheduled pass."""
        run = self.installed.start("reconcile/every-15-minutes")
        until(lambda: self.installed.state(run) in {"Completed", "Failed"}, 120, "the pass")

    def published(self, cycle: Cycle) -> bool:
        return toy_stages.published_address(cycle, self.settings) is not None

    def step_of(self, cycle: Cycle) -> int:
        """The process that did a step of the cycle's rollout; 0 before one did."""
        for line in reversed(toy_stages.ledger(self.settings)):
            if line.startswith(f"step {cycle.id} "):
                return int(line.split()[3])
        return 0

    def live(self, cycle: Cycle, event: str, meddle: Callable[[Cycle], None], passes: int) -> None:
        """The schedule's run of a cycle, what happens to it, the reconciler's passes."""
        self.set_clock(cycle, 6.75)
        began = time.monotonic()
        run = self.installed.start("forecast/live", cycle=cycle.label)
        meddle(cycle)
        used = 0
        while not self._settled(cycle, run):
            if used < passes and self._idle(cycle, run):
                used += 1
                self.set_clock(cycle, 6.75 + 0.25 * used)
                self.reconcile()
            if used >= passes and self._idle(cycle, run):
                break
            time.sleep(0.5)
        seconds = time.monotonic() - began
        if event:
            self.reconcile()  # what is over is said to be over
        self._note(cycle, event, seconds, used)

    def _settled(self, cycle: Cycle, run: str) -> bool:
        return self.published(cycle) and self.installed.state(run) not in {"Running", "Pending"}

    def _idle(self, cycle: Cycle, run: str) -> bool:
        """Nothing of the cycle runs or is about to."""
        busy = {"Scheduled", "Pending", "Running", "Late", "Submitting", "InfrastructurePending"}
        tag = f"cycle:{cycle}"
        states = [each["state_name"] for each in self.installed.runs() if tag in each["tags"]]
        return self.installed.state(run) not in busy and not busy & set(states)

    def _note(self, cycle: Cycle, event: str, seconds: float, passes: int) -> None:
        done = Counter(
            " ".join(line.split()[: 3 if line.startswith("step") else 2])
            for line in toy_stages.ledger(self.settings)
            if cycle.id in line
        )
        runs = [each for each in self.installed.runs() if f"cycle:{cycle}" in each["tags"]]
        row = {
            "cycle": cycle.label,
            "event": event,
            "published": done[f"publish {cycle.id}"],
            "work_done_twice": sum(count > 1 for count in done.values()),
            "forecast_runs": [each["state_name"] for each in runs],
            "seconds": round(seconds, 1),
            "reconciler_passes": passes,
        }
        self.rows.append(row)
        print(
            f"{row['cycle']}  {event:<34} published {row['published']}x  twice "
            f"{row['work_done_twice']}  {seconds:5.0f} s  {passes} passes  "
            f"{' '.join(row['forecast_runs'])}",
            flush=True,
        )

    # What goes wrong

    def nothing(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)

    def late(self, cycle: Cycle) -> None:
        """Past the deadline: an alert, and its end once the cycle is there."""
        time.sleep(8)
        self.set_clock(cycle, 9.5)
        self.reconcile()
        toy_stages.offer(self.settings, cycle)

    def outage(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle, fault="outage")

    def twice(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)
        self.installed.start("forecast/live", cycle=cycle.label)

    def kill_rollout(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)
        os.kill(until(lambda: self.step_of(cycle), 180, "a step"), signal.SIGKILL)

    def kill_machine(self, cycle: Cycle) -> None:
        """The GPU worker and its run die together; the supervisor starts a new worker."""
        toy_stages.offer(self.settings, cycle)
        process = until(lambda: self.step_of(cycle), 180, "a step")
        self.installed.workers[1].send_signal(signal.SIGKILL)
        os.kill(process, signal.SIGKILL)
        self.installed.workers.pop(1)
        self.installed.start_worker("gpu")

    def kill_forecast(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)
        until(lambda: self.step_of(cycle), 180, "a step")
        lock = self.settings.locks / f"{cycle.id}.lock"
        os.kill(int(lock.read_text()), signal.SIGKILL)

    def restart_server(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)
        until(lambda: self.step_of(cycle), 180, "a step")
        self.server.kill()
        self.server.start()

    def beside_a_backfill(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle)
        first = self.first.shift(-36)
        self.installed.start(
            "backfill/on-demand", first=first.label, last=first.shift(24).label, max_active=2
        )

    def refused(self, cycle: Cycle) -> None:
        toy_stages.offer(self.settings, cycle, fault=REFUSED)

    def days(self, count: int) -> None:
        """The sixteen cycles; the refused analysis is the last, because later ones need it."""
        plan: dict[int, tuple[str, Callable[[Cycle], None], int]] = {
            2: ("analysis late", self.late, 1),
            3: ("mirror outage", self.outage, 1),
            5: ("triggered twice", self.twice, 1),
            6: ("SIGKILL of the rollout", self.kill_rollout, 2),
            8: ("SIGKILL of GPU worker and rollout", self.kill_machine, 2),
            9: ("server SIGKILL and restart", self.restart_server, 2),
            11: ("GPU queue full of a backfill", self.beside_a_backfill, 1),
            13: ("SIGKILL of the forecast", self.kill_forecast, 2),
            15: ("analysis refused", self.refused, 2),
        }
        for place in range(count):
            event, meddle, passes = plan.get(place, ("", self.nothing, 1))
            self.live(self.first.shift(6 * place), event, meddle, passes)


@contextmanager
def installation() -> Iterator[FourDays]:
    """Everything, in a folder that is deleted afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mops")))
        folder.chmod(0o755)
        database = stack.enter_context(postgres(folder / "pg")) if binaries() else None
        webhook, delivered = stack.enter_context(receiver())
        (folder / "server").mkdir()
        server = Server(folder / "server", database)
        stack.callback(server.kill)
        installed = Installation.at(
            server.api,
            folder,
            TOY_CLOCK=str(folder / "clock"),
            TOY_STEP_SECONDS="0.5",
            TOY_SILENCE_SECONDS="20",
            TOY_WAIT_SECONDS="90",
            MOSAIC_OPS_ALERT_WEBHOOK=webhook,
            MOSAIC_OPS_CATCHUP_HOURS="48",
        )
        installed.deploy()
        stack.callback(installed.stop_workers)
        for pool in ("cpu", "gpu"):
            installed.start_worker(pool)
        settings = Settings(data_root=folder / "data", variant="mini", members=4, lead_hours=24)
        yield FourDays(installed, server, settings, delivered)


def machine() -> dict[str, Any]:
    """Where and with what the figures were made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    )
    names = ("prefect", "fastapi", "sqlalchemy")
    return {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%MZ}",
        "commit": commit.stdout.strip(),
        "device": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}",
        "versions": {name: metadata.version(name) for name in names},
        "database": "PostgreSQL" if binaries() else "SQLite",
    }


def main() -> None:
    """Run the days, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=CYCLES)
    count = parser.parse_args().cycles
    with installation() as days:
        try:
            days.days(count)
        finally:
            report(days)


def report(days: FourDays) -> None:
    """What was seen so far, printed and written."""
    told = Counter(f"{each['key']} {each.get('state', 'raised')}" for each in days.delivered)
    print("messages:", ", ".join(f"{key} {count}x" for key, count in told.items()) or "none")
    once = sum(row["published"] == 1 for row in days.rows)
    print(f"{once} of {len(days.rows)} cycles published exactly once")
    found = {**machine(), "cycles": days.rows, "messages": dict(told)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
