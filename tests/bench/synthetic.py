"""What the made-up atmosphere costs: fields, GRIB encoding, a tree; how real its statistics are.

    python tests/bench/synthetic.py [--repeat N] [--statistics NPZ]

Seconds are CPU seconds of one thread (median of N). `--statistics` takes norm statistics
(state_mean, state_std) of a real analysis set and adds, per variable, the range over levels of
(mean - real mean) / real std and of std / real std. Writes tests/bench/results/synthetic.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # read by numpy when it is imported, below

RESULTS = Path(__file__).parent / "results" / "synthetic.json"
TIME = "2026-11-23T06"


def cpu_seconds(work: Callable[[], object], repeat: int) -> float:
    """Median CPU seconds of `work`."""
    taken = []
    for _ in range(repeat):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return round(statistics.median(taken), 3)


def peak_mib() -> float:
    """Peak resident set of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024)


def costs(repeat: int) -> dict[str, Any]:
    """CPU seconds and memory of each stage on the 0.25 degree grid."""
    import numpy as np

    from ingest.synthetic.atmosphere import Atmosphere
    from ingest.synthetic.decoys import decoys
    from ingest.synthetic.grib import Encoder, GribFile, Identity, model_messages
    from mosaic_core.contract.cycle import Cycle

    found: dict[str, Any] = {"imports_mib": peak_mib()}
    started = time.process_time()
    native = Atmosphere.native(0)
    found["setup_s"] = round(time.process_time() - started, 3)
    moment = np.datetime64(TIME, "ns")
    found["fields_s"] = cpu_seconds(lambda: native.fields(moment), repeat)
    found["fields_peak_mib"] = peak_mib()
    model = Atmosphere.model(0)
    found["fields_1.5_degrees_s"] = cpu_seconds(lambda: model.fields(moment), repeat)
    fields = native.fields(moment)
    identity = Identity(Cycle.parse(f"{TIME}Z"), "oper")

    def encode(kind: str) -> GribFile:
        file = GribFile(identity)
        with Encoder(identity) as encoder:
            messages = model_messages(fields) if kind == "model" else decoys(
                kind, fields, native.planet  # type: ignore[arg-type]
            )  # fmt: skip
            for label, values in messages:
                file.add(label, encoder.encode(label, values))
        return file

    for kind in ("model", "light", "full"):
        found[f"encode_{kind}_s"] = cpu_seconds(lambda kind=kind: encode(kind), repeat)
        found[f"encode_{kind}_mb"] = round(len(encode(kind).content) / 1e6, 1)
    found["all_peak_mib"] = peak_mib()
    return found


def likeness(path: Path) -> dict[str, Any]:
    """How far the year's statistics are from real ones, per variable over its levels."""
    import numpy as np

    from ingest.synthetic.atmosphere import Atmosphere
    from ingest.synthetic.statics import norm_statistics
    from mosaic_core.contract.variables import CHANNELS

    model = Atmosphere.model(0)
    first = np.datetime64("2026-01-03T00", "ns")
    times = [first + np.timedelta64(k * 15 * 24 + (k % 4) * 6, "h") for k in range(24)]
    mean, deviation = norm_statistics(model.fields(time) for time in times)
    with np.load(path) as real:
        shift = (mean - real["state_mean"]) / real["state_std"]
        ratio = deviation / real["state_std"]
    report = {}
    for name in dict.fromkeys(channel.variable.name for channel in CHANNELS):
        at = [k for k, channel in enumerate(CHANNELS) if channel.variable.name == name]
        report[name] = {
            "mean_shift": [round(float(f(shift[at])), 2) for f in (np.min, np.max)],
            "std_ratio": [round(float(f(ratio[at])), 2) for f in (np.min, np.max)],
        }
    return report


def origin() -> dict[str, Any]:
    """Where and with what these figures were taken."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scipy", "eccodes", "eccodeslib")},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--statistics", type=Path, help="npz with state_mean and state_std (82,)")
    options = parser.parse_args()
    report: dict[str, Any] = origin() | {"costs": costs(options.repeat)}
    if options.statistics:
        report["likeness"] = likeness(options.statistics)
    for name, value in report["costs"].items():
        print(f"{name:24} {value:>8}")
    for name, row in report.get("likeness", {}).items():
        print(f"{name:28} mean shift {row['mean_shift']}  std ratio {row['std_ratio']}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
