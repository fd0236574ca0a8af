"""One step of the full-size network on the CPU: seconds and peak memory, random weights.

    python tests/bench/model_cpu.py hres era5

Every variant runs in a process of its own, so that the peak is its own. Prints a table and
writes tests/bench/results/model_cpu.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "model_cpu.json"


def measure(variant: str) -> dict[str, Any]:
    """Build `variant` with random weights and take one step of one member."""
    import numpy as np
    import torch

    from mosaic_core.contract.grid import LATITUDE, LONGITUDE
    from mosaic_core.model.config import builtin_config
    from mosaic_core.model.mesh import build_geometry
    from mosaic_core.model.mosaic import Mosaic

    torch.manual_seed(0)
    config = builtin_config(variant)
    static = np.random.default_rng(0).standard_normal((LONGITUDE.size, LATITUDE.size, 3))
    start = time.perf_counter()
    geometry = build_geometry(config, LONGITUDE, LATITUDE, static)
    geometry_seconds = time.perf_counter() - start
    model = Mosaic(config, geometry).eval()
    history = torch.randn(1, config.num_history_steps, geometry.points, len(config.variables))
    start, cpu_start = time.perf_counter(), time.process_time()
    with torch.no_grad():
        state = model.step(history, torch.zeros(4), torch.randn(1, config.noise_dim))
    return {
        "variant": variant,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "geometry_seconds": round(geometry_seconds, 2),
        "step_seconds": round(time.perf_counter() - start, 1),
        "step_cpu_seconds": round(time.process_time() - cpu_start, 1),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "output_finite": bool(state.isfinite().all()),
        "output_shape": list(state.shape),
    }


def run_apart(variant: str) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", variant]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured


def surroundings() -> dict[str, Any]:
    """Device, versions, commit and date of this run."""
    import torch

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", default=["hres", "era5"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    rows = [run_apart(variant) for variant in arguments.variants]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(surroundings() | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
