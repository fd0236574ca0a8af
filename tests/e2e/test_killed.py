"""Killed at ten different moments, the job finishes when it is run again, with the same bits.

A reader looks all the while: what it can reach is whole, at every moment.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import xarray as xr

from flows.demo import CYCLE
from postprocess.manifest import MANIFEST, Manifest
from tests.factories import DemoFolder

FIRST = CYCLE.shift(-18)

# (stage, cycle, seconds after that stage began); each kill hits the run that the one before left.
MOMENTS = (
    ("wait", FIRST, 0.0),
    ("fetch", FIRST, 0.0),
    ("fetch", FIRST, 0.15),
    ("archive", FIRST, 0.0),
    ("archive", FIRST, 1.0),
    ("archive", CYCLE.shift(-6), 1.5),
    ("initial_state", CYCLE, 0.1),
    ("rollout", CYCLE, 2.0),
    ("rollout", CYCLE, 6.0),
    ("publish", CYCLE, 0.05),
)


class Reader(threading.Thread):
    """Follows the pointer and reads everything behind it, until told to stop."""

    def __init__(self, published: Path) -> None:
        super().__init__(daemon=True)
        self.published = published
        self.looks = 0
        self.seen = 0
        self.faults: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.02):
            self.looks += 1
            try:
                self.seen += self.look()
            except Exception as error:  # noqa: BLE001 - whatever a reader may stumble over counts
                self.faults.append(f"{type(error).__name__}: {error}")

    def look(self) -> bool:
        latest = self.published / "latest.json"
        if not latest.exists():
            return False
        folder = self.published / json.loads(latest.read_bytes())["path"]
        manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes(), str(folder))
        for record in manifest.objects:
            assert (folder / record.key).stat().st_size == record.size, record.key
        for store in manifest.stores:
            if store.endswith(".zarr"):
                with xr.open_zarr(folder / store, chunks=None, consolidated=True) as dataset:
                    assert dataset.sizes
        with xr.open_zarr(folder / "forecast.zarr", chunks=None) as forecast:
            last = forecast["geopotential"].isel(number=-1, lead_time=-1, level=5)
            assert bool(last.notnull().all())
        return True


def kill_at(demo: DemoFolder, stage: str, cycle: str, delay: float) -> bool:
    """Start the job, SIGKILL it `delay` s after the stage began; whether it was still running."""
    receipt = demo.data / "receipts" / cycle / f"{stage}.json"
    before = receipt.read_bytes() if receipt.exists() else b""
    with demo.start() as process:
        while process.poll() is None and (not receipt.exists() or receipt.read_bytes() == before):
            time.sleep(0.005)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


def contents(run: Path) -> dict[str, str]:
    """Digest of every object of a run, less what says when it was made or fetched."""
    digests = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(run)), path.read_bytes()
        if path.name in ("zarr.json", "health.json"):
            document = json.loads(content)
            facts = document.get("attributes", document.get("run", {}))
            for key in ("date_created", "history"):
                facts.pop(key, None)
            content = json.dumps(document, sort_keys=True).encode()
        if name != MANIFEST and "/provenance/c" not in name:
            digests[name] = hashlib.sha256(content).hexdigest()
    return digests


@pytest.mark.e2e
@pytest.mark.timeout(1500)
def test_ten_kills_change_nothing(fresh: DemoFolder, finished: DemoFolder) -> None:
    reader = Reader(fresh.published)
    reader.start()
    landed = [kill_at(fresh, stage, cycle.id, delay) for stage, cycle, delay in MOMENTS]
    fresh.finish()
    while not reader.seen and not reader.faults:
        time.sleep(0.05)
    reader.stopping.set()
    reader.join()
    assert reader.faults == []
    assert sum(landed) >= 9, landed  # one may have found its stage over within the delay
    assert contents(fresh.run) == contents(finished.run)
    assert not list((fresh.data / "staging").iterdir())
