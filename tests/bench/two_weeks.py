"""Two weeks of cycles through real pools and workers, interrupted three times, beside a live cycle.

Everything is real but the size: genuine GRIB2 files of a made-up atmosphere from an HTTP mirror,
the small model, two members, two steps. The worker and all its runs are killed in the ingest and
again in the rollouts, the server is killed and started again, and a live cycle comes in between;
nobody types anything but the first command: the reconciler's passes bring the backfill back.

    python -m tests.bench.two_weeks                 the table, and results/two_weeks.json
    python -m tests.bench.two_weeks --cycles 8      a shorter one
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.demo import NOTICE, make_weights
from flows.estimates import device_seconds
from flows.plan import Plan, make_plan, window
from flows.progress import LogReporter
from flows.receipts import Receipt
from flows.settings import Settings
from ingest.archive import archived_times
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.tree import make_mirror_tree
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.cycle import Cycle
from postprocess.publish import published_cycle
from tests.bench.four_days import Server, machine
from tests.flows.database import binaries, postgres
from tests.flows.installation import Installation

RESULTS = Path(__file__).resolve().parent / "results" / "two_weeks.json"
FIRST = Cycle.parse("2026-09-02T00Z")
SEEDS = tuple(FIRST.shift(-6 * back) for back in (3, 2, 1))
PASS_SECONDS = 30.0
SHAPE = {"variant": "mini", "members": 2, "lead_hours": 12}
SLOW = 3600.0


@dataclass
class Live:
    """The live cycle: seconds until it was visible, its wait for the GPU, and who came before."""

    cycle: str
    seconds: float
    wait_for_gpu_seconds: float
    backfill_rollouts_before: int


class TwoWeeks:
    """The driver: supervisor of the services, clock of the reconciler, bad luck."""

    def __init__(self, installed: Installation, server: Server, mirror: Mirror, count: int) -> None:
        self.installed, self.server, self.mirror = installed, server, mirror
        self.settings = Settings(
            data_root=installed.folder / "data", device="cpu",
            mirrors=(f"made-up={mirror.url}",), notice=NOTICE, **SHAPE,
        )  # fmt: skip
        self.cycles = [FIRST.shift(6 * place) for place in range(count)]
        self.events: list[str] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self.began:5.0f} s  {text}")
        print(self.events[-1], flush=True)

    # What is asked of the installation

    def archived(self) -> int:
        return int(archived_times(self.settings.archive).size)

    def published(self, cycle: Cycle) -> bool:
        return published_cycle(self.settings.published, cycle) is not None

    def done(self) -> int:
        return sum(map(self.published, self.cycles))

    def plan(self) -> Plan:
        now = dt.datetime.now(dt.UTC)
        return make_plan(window(self.cycles[0], self.cycles[-1], 6, now), self.settings, now)

    def states(self) -> Counter[str]:
        return Counter(run["state_name"] for run in self.installed.runs("backfill"))

    def reach(self, what: str, reached: Any) -> None:
        """Wait, with a pass of the reconciler every so often, as its schedule would have it."""
        give_up, due = time.monotonic() + SLOW, time.monotonic() + PASS_SECONDS
        while not reached():
            assert time.monotonic() < give_up, f"{what} did not come: {self.states()}"
            if time.monotonic() > due:
                assert not self.states()["Failed"], "the backfill failed"
                self.installed.start("reconcile/every-15-minutes")
                due = time.monotonic() + PASS_SECONDS
            time.sleep(1.0)
        self.say(what)

    # What happens

    def seed(self) -> None:
        """Some cycles before the window: then the plan goes by what was measured here."""
        for cycle in SEEDS:
            self.installed.start("forecast/live", cycle=cycle.label)
            self.reach(f"{cycle} before, for the rates", lambda each=cycle: self.published(each))

    def kill_worker(self) -> None:
        """SIGKILL of the CPU worker and all its runs; its supervisor starts another."""
        worker = self.installed.workers.pop(0)
        for process in (worker.pid, *children(worker.pid)):
            os.kill(process, signal.SIGKILL)
        worker.wait()
        self.say(f"CPU worker and its runs killed, {self.done()} cycles published")
        self.installed.start_worker("cpu")
        self.installed.workers.insert(0, self.installed.workers.pop())

    def restart_server(self) -> None:
        self.server.kill()
        time.sleep(5)
        self.server.start()
        self.say("server killed and started again")

    def live(self) -> Live:
        """A live cycle in the middle of it all."""
        cycle = self.cycles[-1].shift(6)
        began = time.monotonic()
        self.installed.start("forecast/live", cycle=cycle.label)
        self.reach(f"live cycle {cycle} visible", lambda: self.published(cycle))
        seconds = time.monotonic() - began
        rollouts = self.installed.runs("rollout")
        mine = next(run for run in rollouts if run["parameters"]["cycle"] == cycle.label)
        asked, started = moment(mine["created"]), moment(mine["start_time"])
        before = sum(
            asked < moment(run["start_time"]) < started for run in rollouts if run["start_time"]
        )
        return Live(cycle.label, seconds, (started - asked).total_seconds(), before)

    def whole(self) -> dict[str, Any]:
        """The whole story; what was planned and what it came to."""
        self.seed()
        plan, count = self.plan(), len(self.cycles)
        held, sent = self.archived(), self.sent()
        first, last = self.cycles[0].label, self.cycles[-1].label
        self.installed.start("backfill/on-demand", first=first, last=last, max_active=2)
        wanted = held + len(plan.to_fetch)
        self.reach("a third of the analyses", lambda: self.archived() >= held + count // 3)
        self.kill_worker()
        self.reach("all analyses", lambda: self.archived() >= wanted)
        self.reach("a quarter of the cycles", lambda: self.done() >= count // 4)
        self.kill_worker()
        self.reach("half of the cycles", lambda: self.done() >= count // 2)
        fetched = self.sent() - sent
        live = self.live()
        self.restart_server()
        self.reach("all cycles", lambda: self.done() == count)
        self.reach("the end of the backfill", lambda: self.states()["Completed"] > 0)
        return {"live": asdict(live), **self.account(plan, fetched)}

    # What it came to

    def sent(self) -> int:
        """Bytes of data files that the mirror has sent."""
        return sum(line.sent or 0 for line in self.mirror.log if line.path.endswith(".grib2"))

    def account(self, plan: Plan, fetched: int) -> dict[str, Any]:
        manifests = [published_cycle(self.settings.published, cycle) for cycle in self.cycles]
        stored = sum(manifest.bytes for manifest in manifests if manifest)
        root = Path(self.settings.published) / "cycles"
        runs = [len([p for p in (root / c.id).iterdir() if p.is_dir()]) for c in self.cycles]
        needed = [need.analysis for need in plan.to_fetch]
        archive = size_of(self.settings.archive) * len(needed) / self.archived()
        return {
            "analyses": pair(len(needed), sum(map(self.is_fetched, needed))),
            "bytes_fetched": pair(plan.fetch_bytes, fetched),
            "bytes_stored": pair(plan.stored_bytes, stored + archive),
            "gpu_seconds": pair(plan.gpu_seconds, self.gpu_seconds()),
            "analyses_fetched_twice": sum(self.fetch_attempts(each) > 1 for each in needed),
            "cycles_published_once": runs.count(1),
            "cycles": len(runs),
            "backfill_runs": dict(self.states()),
            "wall_seconds": round(time.monotonic() - self.began),
            "events": self.events,
        }

    def is_fetched(self, analysis: Cycle) -> bool:
        path = self.settings.downloads / analysis.id / "manifest.json"
        return path.exists() and bool(FetchManifest.read(path).files)

    def fetch_attempts(self, analysis: Cycle) -> int:
        """Whole fetches of an analysis: its bytes on the wire over its bytes on disk, rounded."""
        path = self.settings.downloads / analysis.id / "manifest.json"
        manifest = FetchManifest.read(path)
        name = manifest.data_url.removeprefix(self.mirror.url)
        sent = sum(line.sent or 0 for line in self.mirror.log if line.path == name)
        return round(sent / sum(file.size for file in manifest.files))

    def gpu_seconds(self) -> float:
        """Of each cycle's last attempt; what a killed one had taken is lost with it."""
        paths = (self.settings.receipts / cycle.id / "rollout.json" for cycle in self.cycles)
        return sum(device_seconds(Receipt.read(path), self.settings) or 0.0 for path in paths)


def pair(planned: float, actual: float) -> dict[str, float]:
    """Planned, actual, and by how much the plan was off in percent."""
    off = 100 * (actual - planned) / planned
    return {"planned": round(planned, 1), "actual": round(actual, 1), "off_percent": round(off, 1)}


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def children(process: int) -> list[int]:
    """Processes below a process."""
    import psutil

    return [each.pid for each in psutil.Process(process).children(recursive=True)]


@contextmanager
def installation(count: int, tree: Path | None) -> Iterator[TwoWeeks]:
    """Mirror, database, server, pools and workers, in a folder that is deleted afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mops")))
        folder.chmod(0o755)
        cycles = [SEEDS[0].shift(6 * place) for place in range(-3, count + len(SEEDS) + 1)]
        files = make_mirror_tree(tree or folder / "mirror", cycles, seed=2026, workers=1)
        print(f"{len(files)} analyses on the mirror", flush=True)
        mirror = stack.enter_context(Mirror(tree or folder / "mirror"))
        database = stack.enter_context(postgres(folder / "pg")) if binaries() else None
        (folder / "server").mkdir()
        server = Server(folder / "server", database)
        stack.callback(server.kill)
        installed = Installation.at(
            server.api, folder,
            **{f"MOSAIC_OPS_{name.upper()}": str(value) for name, value in SHAPE.items()},
            MOSAIC_OPS_DEVICE="cpu",
            MOSAIC_OPS_MIRRORS=f"made-up={mirror.url}",
            MOSAIC_OPS_NOTICE=NOTICE,
            MOSAIC_OPS_CATCHUP_HOURS="6",  # the cycles of today are not on this mirror
            OMP_NUM_THREADS="1",
        )  # fmt: skip
        installed.toys = False
        installed.deploy()
        stack.callback(installed.stop_workers)
        for pool in ("cpu", "gpu"):
            installed.start_worker(pool)
        weeks = TwoWeeks(installed, server, mirror, count)
        make_weights(weeks.settings.weights, LogReporter())
        yield weeks


def main() -> None:
    """Run it, print the account, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=56)
    parser.add_argument("--mirror", type=Path, help="Folder that keeps the made-up analyses.")
    options = parser.parse_args()
    with installation(options.cycles, options.mirror) as weeks:
        found = {**machine(), "shape": SHAPE, **weeks.whole()}
    print(json.dumps({key: found[key] for key in found if key != "events"}, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
