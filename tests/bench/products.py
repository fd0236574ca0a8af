"""CPU seconds of the products of a full cycle, beside other libraries where they are installed.

    python tests/bench/products.py [--members 24] [--leads 40] [--device cuda]
                                   [--parts spectra,cyclones,suite,memory]

`spectra`: members x leads x 4 levels of (u, v), extrapolated from a sample of the fields, own
operator in float32 and float64, its torch twin (on --device), ducc0, pyshtools (degree 59 only),
torch-harmonics. `cyclones`: node search, evidence and linking of all members. `suite`: every
product of a whole cycle from the made-up atmosphere, share of each, peak memory above the stream.
`memory`: products and forecast store of eight leads together, peak memory above the stream.
Seconds are process CPU time, best of three for the libraries. Prints a table and writes
tests/bench/results/products.json (products_cuda.json with --device cuda).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "torch", "ducc0", "pyshtools", "torch-harmonics", "xarray", "zarr")
LEVELS = 4
SAMPLE = 96  # wind fields: one lead of 24 members at four levels


def best_of_three(work: Callable[[], object], clock: Callable[[], float]) -> float:
    work()
    times = []
    for _ in range(3):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def winds() -> tuple[np.ndarray, np.ndarray]:
    """SAMPLE smooth random winds (field, latitude, longitude) float32."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, SAMPLE, 121, 240)).astype(np.float32)
    return u, v


def spectra(fields: int, device: str) -> dict[str, float]:
    """Seconds for `fields` winds by each library."""
    from postprocess.products.spectra.energy import kinetic_energy, operator

    u, v = winds()
    rows: dict[str, float] = {}
    if device != "cpu":
        return _torch_twin(u, v, fields, device)
    for dtype in ("float32", "float64"):
        op = operator(121, 240, spin=1, dtype=dtype)
        uv = u.astype(dtype), v.astype(dtype)
        seconds = best_of_three(lambda op=op, uv=uv: kinetic_energy(op, *uv), time.process_time)
        rows[f"own operator, numpy {dtype}"] = seconds * fields / SAMPLE
    rows |= _torch_twin(u, v, fields, device)
    for name, library in (("ducc0 float64", _ducc0), ("ducc0 float32", _ducc0_single),
                          ("pyshtools float64, degree 59", _pyshtools),
                          ("torch-harmonics float32", _torch_harmonics)):  # fmt: skip
        try:
            work = library(u, v)
        except ImportError as error:
            print(f"left out, {name}: {error}", file=sys.stderr)
            continue
        count = 16  # fields a call: enough to forget the call itself
        rows[name] = best_of_three(work, time.process_time) * fields / count
    return rows


def _torch_twin(u: np.ndarray, v: np.ndarray, fields: int, device: str) -> dict[str, float]:
    import torch

    from postprocess.products.spectra.energy import kinetic_energy, operator

    op = operator(121, 240, spin=1, dtype="float32")
    twin = op.converted(lambda matrix: torch.from_numpy(matrix).to(device))
    tensors = [torch.from_numpy(part).to(device) for part in (u, v)]
    batch = 8 if device == "cpu" else SAMPLE

    def work() -> None:
        kinetic_energy(twin, *tensors, xp=torch, batch=batch)
        if device != "cpu":
            torch.cuda.synchronize()

    clock = time.process_time if device == "cpu" else time.perf_counter
    label = "own operator, torch float32 " + ("CPU" if device == "cpu" else _card(torch))
    rows = {label: best_of_three(work, clock) * fields / SAMPLE}
    numpy_result = kinetic_energy(op, u[:2], v[:2])[0]
    torch_result = kinetic_energy(twin, *(part[:2] for part in tensors), xp=torch)[0].cpu().numpy()
    rows["torch twin, largest relative difference"] = float(
        np.max(np.abs(torch_result[:, 1:] / numpy_result[:, 1:] - 1))
    )
    return rows


def _card(torch: Any) -> str:
    return f"{torch.cuda.get_device_name()} (wall)"


def _ducc0(u: np.ndarray, v: np.ndarray, dtype: str = "float64") -> Callable[[], object]:
    import ducc0

    maps = np.stack([-v[:16], u[:16]], axis=1)[:, :, ::-1].astype(dtype)
    degree = np.concatenate([np.arange(m, 120) for m in range(120)])
    weight = np.where(np.arange(degree.size) < 120, 1.0, 2.0) / (8 * np.pi)

    def work() -> None:
        for wind in maps:
            alm = ducc0.sht.analysis_2d(map=wind, spin=1, lmax=119, geometry="CC", nthreads=1)
            [np.bincount(degree, weight * np.abs(part) ** 2) for part in alm]

    return work


def _ducc0_single(u: np.ndarray, v: np.ndarray) -> Callable[[], object]:
    return _ducc0(u, v, "float32")


def _pyshtools(u: np.ndarray, v: np.ndarray) -> Callable[[], object]:
    from pyshtools.expand import SHExpandDH

    grids = np.concatenate([u[:16], v[:16]])[:, :120].astype(np.float64)

    def work() -> None:
        for grid in grids:
            (SHExpandDH(grid, sampling=2) ** 2).sum(axis=(0, 2))

    return work


def _torch_harmonics(u: np.ndarray, v: np.ndarray) -> Callable[[], object]:
    import torch
    from torch_harmonics import RealVectorSHT

    transform = RealVectorSHT(121, 240, lmax=120, mmax=120, grid="equiangular")
    wind = torch.from_numpy(np.ascontiguousarray(np.stack([-v[:16], u[:16]], axis=1)[:, :, ::-1]))
    transform = transform.to(torch.float32)

    def work() -> None:
        (transform(wind).abs() ** 2).sum(-1)

    return work


def members_of(count: int) -> Callable[[int], np.ndarray]:
    """Fields (member, channel, latitude, longitude) by lead: the made-up atmosphere, shifted.

    Each member is rolled a little in longitude: as many storms and as much structure as real ones.
    """
    from ingest.synthetic.atmosphere import Atmosphere

    atmosphere, start = Atmosphere.model(0), np.datetime64("2026-08-20T00", "ns")
    held = [atmosphere.fields(start + np.timedelta64(6 * k, "h")) for k in range(4)]

    def fields(lead: int) -> np.ndarray:
        first = held[lead % len(held)]
        # The analysis is the same for all; later members drift apart by columns.
        # A small factor of its own keeps members from being copies of one another.
        return np.stack([np.roll(first, (member % 5) * (lead > 0), axis=2)
                         * np.float32(1 + 1e-5 * member) for member in range(count)])  # fmt: skip

    return fields


def steps(members: int, leads: int):
    from mosaic_core.contract.artifacts import ForecastStep
    from mosaic_core.contract.variables import CHANNEL_NAMES

    fields = members_of(members)
    for lead in range(leads + 1):
        hours = np.timedelta64(6 * lead, "h").astype("timedelta64[ns]")
        init = np.datetime64("2026-08-20T00", "ns")
        yield ForecastStep(init, lead, hours, tuple(range(members)), CHANNEL_NAMES, fields(lead))


def cyclones(members: int, leads: int) -> dict[str, float]:
    """Seconds of the tracker alone, probabilities and formats apart."""
    from postprocess.products.cyclones.formats import write_tracks
    from postprocess.products.cyclones.probability import plumes, probabilities
    from postprocess.products.cyclones.stream import CycloneTracker

    tracker, spent = CycloneTracker(), 0.0
    for step in steps(members, leads):
        start = time.process_time()
        tracker.update(step)
        spent += time.process_time() - start
    start = time.process_time()
    table = tracker.result()
    identity = time.process_time() - start
    start = time.process_time()
    probabilities(table, tracker.members)
    plumes(table, tracker.members)
    maps = time.process_time() - start
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        write_tracks(table, Path(folder))
    files = time.process_time() - start
    return {
        "nodes, evidence and linking": spent,
        "selection and identities": identity,
        "strike and activity maps, plumes": maps,
        "five file formats": files,
        "track points": float(len(table)),
    }


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def suite(members: int, leads: int) -> dict[str, float]:
    """CPU seconds of every product of a cycle, made as the flow makes them, and the peak memory.

    The stream is eight leads; what is spent on it and in the caller's thread is not counted.
    """
    from postprocess.products.suite import ProductOptions, ProductSuite

    sample = min(leads, 8)
    rows: dict[str, float] = {}
    for _ in steps(members, 2):  # the stream's own memory: one lead and its successor
        pass
    before = peak_mib()
    options = ProductOptions(enforce_health=False, rounding="default")
    with tempfile.TemporaryDirectory() as folder, ProductSuite(Path(folder), options) as made:
        spent = _time_each(made)
        handing_over = 0.0
        for step in steps(members, sample):
            start = time.thread_time()
            made.update(step)
            handing_over += time.thread_time() - start
        made.quarantined()
        start = time.process_time()
        made.finish({})
        finish = time.process_time() - start
    scale = (leads + 1) / (sample + 1)
    spent["rounded copy, in the caller's thread"] = handing_over
    rows |= {name: seconds * scale for name, seconds in spent.items()}
    rows["writing at the end"] = finish
    rows["all products"] = sum(spent.values()) * scale + finish
    rows["peak memory above the stream, MiB"] = peak_mib() - before
    rows["leads measured"] = float(sample + 1)
    return rows


def memory(members: int, leads: int) -> dict[str, float]:
    """Peak memory of what the flow does with a stream, without the model that makes it.

    Run alone: the peak is that of the process since it started.
    """
    from postprocess.products.suite import ProductOptions, ProductSuite
    from postprocess.store import ForecastWriter
    from tests.postprocess.store.made_up import spec, steps

    made_up = spec(members, min(leads, 8) + 1)
    for _, _ in zip(range(2), steps(made_up), strict=False):
        pass
    before = peak_mib()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ProductOptions(enforce_health=False, rounding="default")
        with ProductSuite(folder, options) as suite:
            with ForecastWriter(folder / "forecast.zarr", made_up) as writer:
                for step in steps(made_up):
                    writer.write(step)
                    suite.update(step)
            suite.finish({})
    return {"peak memory of products and store above the stream, MiB": peak_mib() - before}


def _time_each(made: Any) -> dict[str, float]:
    """Clocks of every thread of a suite: filled while it works."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.thread_time()
            result = work(*arguments)
            spent[name] = spent.get(name, 0.0) + time.thread_time() - start
            return result

        return call

    lanes = made._lanes
    for consumers in lanes._consumers.values():
        consumers[:] = [timed(update.__self__.name, update) for update in consumers]
    lanes._screen = timed("health", lanes._screen)
    return spent


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--leads", type=int, default=40)
    parser.add_argument("--parts", default="spectra,cyclones,suite,memory")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "spectra": lambda: spectra(options.members * options.leads * LEVELS, options.device),
        "cyclones": lambda: cyclones(options.members, options.leads),
        "suite": lambda: suite(options.members, options.leads),
        "memory": lambda: memory(options.members, options.leads),
    }
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    path = RESULTS / f"products{suffix}.json"
    held = json.loads(path.read_text())["results"] if path.exists() else {}
    for name in options.parts.split(","):
        held[name] = parts[name]()
        print(f"\n{name}: {options.members} members, {options.leads} leads")
        for row, value in held[name].items():
            print(f"  {row:48s} {value:12.4g}")
    document = {
        "members": options.members, "leads": options.leads, "results": held,
        "processor": platform.processor() or platform.machine(), "versions": versions(),
        "commit": commit(), "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
