"""What it costs to keep restart states: seconds and bytes of one, as a share of the cycle.

    python tests/bench/restart.py [--members N] [--repeat N] [--folder PATH]

A standing of every variant at full size is written as the rollout writes it (aside, synced,
renamed) and read back with its checksums tested. The share is that of a cycle whose steps take the
given seconds, at the rule that is the default (as often as costs at most 3 %) and at every step.
Seconds are medians of wall time, CPU seconds those of the process. Writes
tests/bench/results/restart.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2])]

from mosaic_core.contract.grid import LATITUDE, LONGITUDE  # noqa: E402
from mosaic_core.contract.variables import CHANNELS  # noqa: E402
from mosaic_core.contract.variants import VARIANTS  # noqa: E402
from mosaic_core.restart import SHARE_OF_TIME, RestartFolder, Standing  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "restart.json"
POINTS = LATITUDE.size * LONGITUDE.size
LEAD_HOURS = 240
# Seconds of a step of all members: a data-centre GPU, a GPU ten times slower, a CPU.
STEP_SECONDS = (0.6, 6.0, 60.0)


def standing_of(variant: str, members: int) -> Standing:
    """States of all members as they are after a few steps, each member its own."""
    shape = (members, POINTS, len(CHANNELS))
    count = VARIANTS[variant].history_count
    return Standing(1, tuple(torch.randn(shape) for _ in range(count)))


def measured(variant: str, members: int, repeat: int, folder: Path) -> dict[str, float]:
    """Bytes, seconds and CPU seconds to keep a standing, seconds to read it back."""
    kept, wall, cpu, reading = RestartFolder(folder, every=1), [], [], []
    standing = standing_of(variant, members)
    for step in range(1, repeat + 1):
        started, work = time.perf_counter(), time.process_time()
        kept.keep(Standing(step, standing.states))
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - work)
        started = time.perf_counter()
        again = kept.newest(before=step + 1)
        reading.append(time.perf_counter() - started)
        assert again is not None
        assert torch.equal(again.states[-1], standing.states[-1])
    size = max(path.stat().st_size for path in folder.iterdir())
    kept.remove()
    return {
        "megabytes": size / 1e6,
        "seconds": statistics.median(wall),
        "cpu_seconds": statistics.median(cpu),
        "reading_seconds": statistics.median(reading),
    }


def shares(seconds: float, variant: str) -> dict[str, dict[str, float]]:
    """By the seconds of a step: how many are kept in a cycle, and the share of its time."""
    steps = VARIANTS[variant].steps_for(LEAD_HOURS)
    found = {}
    for step_seconds in STEP_SECONDS:
        run = steps * step_seconds
        pause = seconds / SHARE_OF_TIME
        kept = int(run / (pause + seconds))
        found[f"{step_seconds} s a step"] = {
            "kept by default": kept,
            "share by default": kept * seconds / run,
            "share at every step": steps * seconds / run,
        }
    return found


def commit() -> str:
    """The commit that was measured."""
    asked = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="disk to write to")
    chosen = parser.parse_args()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for variant in ("era5", "hres"):
            cost = measured(variant, chosen.members, chosen.repeat, Path(folder) / variant)
            table = shares(cost["seconds"], variant)
            results[variant] = {**cost, "shares": table}
            print(
                f"{variant}: {cost['megabytes']:.0f} MB, {cost['seconds']:.2f} s, "
                f"{cost['cpu_seconds']:.2f} CPU s, read back in {cost['reading_seconds']:.2f} s"
            )
            for name, row in table.items():
                told = (
                    f"{key} {value:.1%}" if "share" in key else f"{key} {value:.0f}"
                    for key, value in row.items()
                )
                print(f"  {name:14} {', '.join(told)}")
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "load": os.getloadavg(),
        "versions": {"numpy": version("numpy"), "torch": version("torch")},
        "members": chosen.members,
        "results": results,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
