"""Do independent readers see the same numbers? Clean environments, tensorstore, zarrs, zarrita.

    python tests/bench/readers.py [--node-modules DIR]

Makes a small forecast store and has each reader print the SHA-256 of every array. The clean
environments hold nothing but the named packages, installed by pip into new virtual environments.
zarrita (node) is tried when DIR, a node_modules folder that has it, is given. Prints a table and
writes tests/bench/results/readers.json; exits 1 if any reader differs.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import zarr

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "postprocess" / "store")]

import made_up  # noqa: E402

from postprocess.store import ForecastWriter  # noqa: E402

RESULTS = HERE / "results" / "readers.json"
CLEAN = {
    "xarray + zarr": ("xarray", "zarr"),
    "xarray 2025.6 + zarr 3.1": ("xarray==2025.6.1", "zarr==3.1.0"),
}
XARRAY = """
import hashlib, json, sys, importlib.metadata as m
import xarray as xr
ds = xr.open_zarr(sys.argv[1], decode_times=False, decode_timedelta=False)
plain = xr.open_zarr(sys.argv[1])
assert plain.lead_time.dtype == "timedelta64[ns]" and "valid_time" in plain.coords, plain
sha = lambda values: hashlib.sha256(values.tobytes()).hexdigest()
print(json.dumps({str(name): sha(ds[name].values) for name in ds.variables}))
"""
TENSORSTORE = """
import hashlib, json, sys, pathlib
import numpy as np, tensorstore as ts
found = {}
for folder in sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/zarr.json")):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder) + "/"}}
    values = np.ascontiguousarray(ts.open(spec, open=True).result().read().result())
    found[folder.name] = hashlib.sha256(values.tobytes()).hexdigest()
print(json.dumps(found))
"""
ZARRS = XARRAY.replace(
    "import xarray as xr",
    "import zarr, xarray as xr\n"
    "zarr.config.set({'codec_pipeline.path': 'zarrs.ZarrsCodecPipeline'})",
)


def own_digests(store: Path) -> dict[str, str]:
    """SHA-256 of every array as zarr-python reads it here."""
    group = zarr.open_group(store, mode="r")
    return {
        name: hashlib.sha256(array[...].tobytes()).hexdigest() for name, array in group.arrays()
    }


def run(command: list[str], cwd: Path | None = None) -> dict[str, str]:
    """The digests a reader prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    digests: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return digests


def clean_python(folder: Path, packages: tuple[str, ...]) -> str:
    """An interpreter whose environment holds only these packages and what they need."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def main() -> None:
    """Run every reader and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node-modules", type=Path)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mosaic-readers-"))
    store, spec = folder / "forecast.zarr", made_up.spec()
    with ForecastWriter(store, spec) as writer:
        for step in made_up.steps(spec):
            writer.write(step)
    wanted = own_digests(store)
    found = {"tensorstore": run([sys.executable, "-c", TENSORSTORE, str(store)])}
    found["xarray + zarrs pipeline"] = run([sys.executable, "-c", ZARRS, str(store)])
    for number, (name, packages) in enumerate(CLEAN.items()):
        python = clean_python(folder / f"venv{number}", packages)
        found[name] = run([python, "-c", XARRAY, str(store)], cwd=folder)
    if chosen.node_modules:
        shutil.copy(HERE / "zarrita_digests.mjs", folder)
        (folder / "node_modules").symlink_to(chosen.node_modules.absolute())
        found["zarrita"] = run(["node", str(folder / "zarrita_digests.mjs"), str(store)])
    verdict = {name: digests == wanted for name, digests in found.items()}
    for name, same in verdict.items():
        print(f"{name:28} {len(found[name]):3} arrays  {'same' if same else 'DIFFERENT'}")
    document = {"date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "same": verdict}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    shutil.rmtree(folder)
    sys.exit(0 if all(verdict.values()) else 1)


if __name__ == "__main__":
    main()
