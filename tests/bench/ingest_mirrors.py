"""A mirror that misbehaves, seen by our fetcher and by the `ecmwf-opendata` client.

    python tests/bench/ingest_mirrors.py [--limit SECONDS] [--only NAME]

Each case runs in a process of its own over the same faulty server and one analysis of the made-up
atmosphere; a client that has not ended after the limit is killed and counted as hanging. What
counts is how it ended, and what lies at the target path afterwards. Prints a table and writes
tests/bench/results/ingest_mirrors.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "ingest_mirrors.json"
CYCLE = "2026-11-23T00Z"
DEADLINE = 12.0


def cases() -> dict[str, dict[str, Any]]:
    """Name -> arguments of the mirror."""
    from ingest.synthetic import faults as f
    from ingest.synthetic.mirror import Ranges

    grib, index = "*.grib2", "*.index"
    return {
        "honest, multi-range": {},
        "multi-range refused (400)": {"ranges": Ranges.REFUSE_MULTI},
        "ranges ignored": {"ranges": Ranges.IGNORED},
        "not there yet (404)": {"faults": [f.Fault("*", f.Refuse(404))]},
        "503 with Retry-After 1, six times": {
            "faults": [f.Fault("*", f.Refuse(503, "1"), count=6)]},
        "429 for ever": {"faults": [f.Fault("*", f.Refuse(429, "1"))]},
        "401 once in the data": {
            "faults": [f.Fault(grib, f.Refuse(401), method="GET", count=1)]},
        "stalled body": {"faults": [f.Fault(grib, f.Stall(3_000_000), method="GET", count=1)]},
        "reset in the body": {"faults": [f.Fault(grib, f.Reset(3_000_000), method="GET", count=1)]},
        "cut in good order": {"faults": [f.Fault(grib, f.Cut(3_000_000), method="GET", count=1)]},
        "drip of 100 kB/s": {"faults": [f.Fault(grib, f.Drip(100_000), method="GET")]},
        "half uploaded": {"faults": [f.Fault(grib, f.HalfUploaded(0.5))]},
        "half an index": {"faults": [f.Fault(index, f.HalfUploaded(0.5))]},
    }  # fmt: skip


def ours(url: str, folder: Path) -> None:
    """Fetch with ingest.fetch under a short deadline."""
    from ingest.fetch import fetch_analysis
    from ingest.sources import Source
    from ingest.transfer import TransferPolicy
    from mosaic_core.contract.cycle import Cycle

    policy = TransferPolicy(read_seconds=2.0, total_seconds=DEADLINE)
    fetch_analysis(Cycle.parse(CYCLE), Source("bench", url), folder, policy=policy)


def theirs(url: str, folder: Path) -> None:
    """Retrieve the same 82 fields with the client as its documentation shows, in two requests:
    a request with levels passes over the surface.
    """
    from ecmwf.opendata import Client

    client = Client(source=url, model="ifs", resol="0p25", preserve_request_order=False)
    levels = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]
    when: dict[str, Any] = {"date": CYCLE[:10], "time": 0, "step": 0, "type": "fc"}
    upper = ["z", "q", "t", "u", "v", "w"]
    surface = {"param": ["2t", "10u", "10v", "msl"], "levtype": "sfc"}
    client.retrieve(**when, **surface, target=str(folder / "surface.grib2"))
    levels_of = {"param": upper, "levtype": "pl", "levelist": levels}
    client.retrieve(**when, **levels_of, target=str(folder / "analysis.grib2"))


CLIENTS: dict[str, Callable[[str, Path], None]] = {"ours": ours, "ecmwf-opendata": theirs}


def attempt(client: str, url: str, limit: float) -> dict[str, Any]:
    """One client in a process of its own: how it ended and what it left."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        command = [sys.executable, __file__, "--client", client, "--url", url, "--folder", work]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
            ended = "data" if done.returncode == 0 else "error: " + _last(done.stderr)
        except subprocess.TimeoutExpired:
            ended = f"hangs (killed after {limit:g} s)"
        return {
            "ended": ended,
            "seconds": round(time.monotonic() - started, 1),
            "messages": _messages(folder),
        }


def _last(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if "remedy" not in line]
    return lines[-1][-160:] if lines else "unknown"


def _messages(folder: Path) -> str:
    """Whole messages at the target paths, or what else is there."""
    from ingest.decode import read_headers
    from mosaic_core.contract.errors import MosaicOpsError

    targets = sorted(folder.glob("*.grib2"))
    try:
        count = sum(len(list(read_headers(target))) for target in targets)
    except MosaicOpsError:
        return f"a part of {sum(t.stat().st_size for t in targets) / 1e6:.1f} MB"
    return f"{count} messages" if targets else "no file"


def benchmark(limit: float, only: str | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Every case with every client."""
    from ingest.synthetic.mirror import Mirror
    from ingest.synthetic.tree import make_mirror_tree
    from mosaic_core.contract.cycle import Cycle

    results: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as tree:
        make_mirror_tree(Path(tree), [Cycle.parse(CYCLE)], workers=1)
        for name, arguments in cases().items():
            if only and only not in name:
                continue
            results[name] = {}
            for client in CLIENTS:
                with Mirror(Path(tree), **arguments) as mirror:
                    results[name][client] = attempt(client, mirror.url, limit)
                print(f"{name:36} {client:15} {results[name][client]}", flush=True)
    return results


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=40.0)
    parser.add_argument("--only", help="cases whose name holds this")
    for hidden in ("--client", "--folder", "--url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        CLIENTS[options.client](options.url, Path(options.folder))
        return
    results = benchmark(options.limit, options.only)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    record = {
        "deadline_seconds": DEADLINE,
        "limit_seconds": options.limit,
        "results": results,
        "versions": {name: version(name) for name in ("ecmwf-opendata", "multiurl", "httpx")},
        "commit": commit.stdout.strip(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
