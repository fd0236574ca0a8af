"""One analysis of 82 fields through every stage of the ingest: CPU seconds and peak memory.

    python tests/bench/ingest_stages.py [--tree DIR] [--repeat N] [--rivals]

Makes a file of the made-up atmosphere in ECMWF's layout (or takes it from DIR), serves it from a
process of its own, and runs each stage N times in fresh processes. Seconds are CPU seconds of that
process after its imports (median); memory is the peak resident set, and how much of it was there
after the imports. `--rivals` adds cfgrib + xarray + xarray-regrid and earthkit-data, where they
are installed. Prints a table and writes tests/bench/results/ingest_stages.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "ingest_stages.json"
CYCLE = "2026-11-23T00Z"
PACKAGES = ("eccodes", "eccodeslib", "numpy", "scipy", "xarray", "zarr", "httpx")
RIVAL_PACKAGES = ("cfgrib", "xarray-regrid", "earthkit-data")


def peak_mib() -> float:
    """Peak resident set of this process since it began (ru_maxrss would count the parent's)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    high = next(line for line in lines if line.startswith("VmHWM"))
    return int(high.split()[1]) / 1024


def fetch(folder: Path, url: str) -> Callable[[], object]:
    """Index, ranges, per-message checks, digests, manifest."""
    from ingest.fetch import fetch_analysis
    from ingest.sources import Source
    from mosaic_core.contract.cycle import Cycle

    shutil.rmtree(folder, ignore_errors=True)
    return lambda: fetch_analysis(Cycle.parse(CYCLE), Source("bench", url), folder)


def decode(folder: Path, url: str) -> Callable[[], object]:
    """82 messages to float32 arrays, one at a time."""
    del url
    from ingest.decode import read_messages

    messages = read_messages(folder / "analysis.grib2", units=False)
    return lambda: sum(field.values.size for field in messages)


def decode_regrid(folder: Path, url: str) -> Callable[[], object]:
    """The 82 planes on 1.5 degrees: decode, checks, regrid, one message in memory."""
    del url
    from ingest.decode import read_messages
    from ingest.planes import analysis_planes
    from mosaic_core.contract.cycle import Cycle

    path, time = folder / "analysis.grib2", Cycle.parse(CYCLE).init_time
    return lambda: analysis_planes(read_messages(path, units=False), time, str(path))


def gate(folder: Path, url: str) -> Callable[[], object]:
    """Every check, with statistics, static fields and the analysis before."""
    del url
    import numpy as np

    from ingest.analysis import build_analysis, incoming_statics
    from ingest.gate.judge import judge
    from ingest.gate.reference import Reference, planes_of
    from mosaic_core.contract.artifacts import FetchManifest
    from mosaic_core.contract.schema import dataset_to_channels

    dataset = build_analysis(FetchManifest.read(folder / "manifest.json"), folder)
    fields = dataset_to_channels(dataset)[0].astype(np.float64)
    statics = incoming_statics(folder)
    reference = Reference(
        fields.mean(axis=(1, 2)), fields.std(axis=(1, 2)),
        statics["geopotential_at_surface"], statics["land_sea_mask"],
    )  # fmt: skip
    planes = planes_of(dataset)
    before = {name: plane + np.float32(1e-3) for name, plane in planes.items()}
    return lambda: judge(planes, reference=reference, previous=before, static_fields=statics)


def archive(folder: Path, url: str) -> Callable[[], object]:
    """Append one analysis to an archive that holds one already."""
    del url
    import numpy as np

    from ingest.analysis import build_analysis
    from ingest.archive import append_analysis
    from mosaic_core.contract.artifacts import FetchManifest

    dataset = build_analysis(FetchManifest.read(folder / "manifest.json"), folder)
    store = Path(tempfile.mkdtemp(dir=folder.parent)) / "analyses.zarr"
    earlier = dataset.assign_coords(time=dataset["time"] - np.timedelta64(6, "h"))
    earlier["time"].attrs.update(dataset["time"].attrs)
    append_analysis(store, earlier)
    return lambda: append_analysis(store, dataset)


def cfgrib_regrid(folder: Path, url: str) -> Callable[[], object]:
    """The usual way: cfgrib, xarray, xarray-regrid (its conservative scheme is not ours)."""
    del url
    import xarray as xr
    import xarray_regrid  # noqa: F401

    from mosaic_core.contract.grid import LATITUDE, LONGITUDE

    target = xr.Dataset(coords={"latitude": LATITUDE, "longitude": LONGITUDE})
    selections: list[dict[str, Any]] = [
        {"typeOfLevel": "isobaricInhPa"},
        {"shortName": "2t"},
        {"shortName": ["10u", "10v"]},
        {"shortName": "msl"},
    ]

    def run() -> object:
        return [
            xr.open_dataset(
                folder / "analysis.grib2", engine="cfgrib", filter_by_keys=keys, indexpath=""
            )
            .load()
            .regrid.conservative(target, latitude_coord="latitude")
            for keys in selections
        ]

    return run


def earthkit(folder: Path, url: str) -> Callable[[], object]:
    """Decode with earthkit-data; regrid each field with our weights."""
    del url
    import earthkit.data
    import numpy as np

    from ingest.regrid import ConservativeRegridder

    latitude, longitude = np.linspace(90, -90, 721), 180 + 0.25 * np.arange(1440)

    def run() -> object:
        regridder = ConservativeRegridder(latitude, longitude)
        source = earthkit.data.from_source("file", str(folder / "analysis.grib2"))
        fields = source.to_fieldlist()
        return [regridder(field.to_numpy(dtype="float32")) for field in fields]

    return run


STAGES: dict[str, Callable[[Path, str], Callable[[], object]]] = {
    "fetch": fetch,
    "decode": decode,
    "decode + regrid": decode_regrid,
    "gate": gate,
    "archive": archive,
}
RIVALS = {"cfgrib + xarray-regrid": cfgrib_regrid, "earthkit-data + our weights": earthkit}


def measure(stage: str, folder: Path, url: str) -> dict[str, float]:
    """One run of one stage in this process."""
    run = (STAGES | RIVALS)[stage](folder, url)
    before, start = peak_mib(), time.process_time()
    kept = run()
    seconds = time.process_time() - start
    del kept
    return {"cpu_seconds": seconds, "peak_mib": peak_mib(), "peak_mib_before": before}


def run_apart(stage: str, folder: Path, url: str) -> dict[str, float]:
    """`measure` in a process of its own, on one core."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--url", url]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


@contextmanager
def served(tree: Path) -> Iterator[str]:
    """The address of a mirror over `tree` in another process."""
    script = (
        "import sys; from pathlib import Path; from ingest.synthetic.mirror import Mirror\n"
        "mirror = Mirror(Path(sys.argv[1])); print(mirror.url, flush=True); mirror.serve_forever()"
    )
    command = [sys.executable, "-c", script, str(tree)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number, rounded."""
    return {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}


def surroundings() -> dict[str, Any]:
    """Device, versions, commit and date of this run."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in (*PACKAGES, *RIVAL_PACKAGES)},
        "commit": commit.stdout.strip(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def installed(name: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def benchmark(tree: Path, repeat: int, stages: list[str]) -> dict[str, dict[str, float]]:
    """Medians of every stage."""
    from ingest.synthetic.tree import make_mirror_tree
    from mosaic_core.contract.cycle import Cycle

    make_mirror_tree(tree, [Cycle.parse(CYCLE)], workers=1)
    results = {}
    with served(tree) as url, tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "analysis"
        for stage in stages:
            results[stage] = medians([run_apart(stage, folder, url) for _ in range(repeat)])
            print(f"{stage:30} {results[stage]}", flush=True)
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as a Markdown table."""
    lines = ["| stage | CPU s | peak MiB | of which before |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row['cpu_seconds']:.2f} | {row['peak_mib']:.0f} "
        f"| {row['peak_mib_before']:.0f} |"
        for name, row in results.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, help="keep and reuse the made-up files here")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rivals", action="store_true")
    for hidden in ("--stage", "--folder", "--url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(measure(options.stage, Path(options.folder), options.url)))
        return
    stages = [*STAGES, *(RIVALS if options.rivals else ())]
    with tempfile.TemporaryDirectory() as scratch:
        results = benchmark(options.tree or Path(scratch), options.repeat, stages)
    ours = sum(results[stage]["cpu_seconds"] for stage in STAGES if stage != "decode")
    print(table(results))
    print(f"the whole ingest of a cycle: {ours:.2f} CPU s")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {"results": results, "whole_cpu_seconds": round(ours, 2), **surroundings()}, indent=2
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
