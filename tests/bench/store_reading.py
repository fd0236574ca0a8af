"""How quick a published forecast is to read: local, and from an S3 server with obstore and s3fs.

    python tests/bench/store_reading.py [--members N] [--leads N] [--repeat N]

Milliseconds are medians of wall time after one warm-up; requests are counted exactly, as the reads
that zarr asks of its store. The stores are made by our writers; SeaweedFS runs on the loopback.
Writes tests/bench/results/store_reading.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import obstore.store
import xarray as xr
from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

HERE = Path(__file__).parent
TESTS = HERE.parent / "postprocess"
sys.path[:0] = [str(HERE.parents[1]), str(TESTS / "store"), str(TESTS / "publish"), str(HERE)]

import made_up  # noqa: E402
import servers  # noqa: E402
import store as writing  # noqa: E402

from mosaic_core.contract.artifacts import ForecastStep  # noqa: E402
from mosaic_core.contract.variables import CHANNEL_NAMES  # noqa: E402
from postprocess.objects.root import IMMUTABLE, open_root  # noqa: E402
from postprocess.points import write_points  # noqa: E402
from postprocess.store import ForecastWriter  # noqa: E402

RESULTS = HERE / "results" / "store_reading.json"
PLACE = {"latitude": 95, "longitude": 7}


class Counting(WrapperStore):
    """A store that counts what is asked of it."""

    requests = 0

    async def get(self, *arguments: Any, **options: Any) -> Any:
        """One read, whole or of a range."""
        Counting.requests += 1
        return await super().get(*arguments, **options)


# Name -> (store, selection of the 2 metre temperature); opening reads nothing.
READS: dict[str, tuple[str, dict[str, int] | None]] = {
    "open": ("forecast.zarr", None),
    "one map": ("forecast.zarr", {"number": 3, "lead_time": 7}),
    "maps of all leads, 1 member": ("forecast.zarr", {"number": 3}),
    "all leads at a point, 1 member, map store": ("forecast.zarr", {"number": 3, **PLACE}),
    "all leads at a point, 1 member, point store": ("points.zarr", {"number": 3, **PLACE}),
    "all leads at a point, all members, map store": ("forecast.zarr", PLACE),
    "all leads at a point, all members, point store": ("points.zarr", PLACE),
}


def make(folder: Path, members: int, leads: int) -> None:
    """The map store and the point store of one cycle."""
    spec = made_up.spec(members=members, leads=leads)
    fields = writing.ready_fields(writing.make_fields(members), leads)
    with ForecastWriter(folder / "forecast.zarr", spec) as writer:
        for step, lead in enumerate(spec.lead_times):
            made = ForecastStep(
                spec.init_time, step, lead, spec.numbers, CHANNEL_NAMES, fields[step]
            )
            writer.write(made)
    write_points(folder / "forecast.zarr", folder / "points.zarr", spec)


def upload(folder: Path, address: str) -> None:
    """The parts that are read: coordinates, metadata and the 2 metre temperature."""
    root = open_root(address)
    for path in sorted(folder.rglob("*")):
        array = path.relative_to(folder).parts[1:2]
        small = path.is_file() and path.stat().st_size < 100_000 and path.name.count(".") < 5
        if path.is_file() and (small or array == ("2m_temperature",)):
            root.upload(path.relative_to(folder).as_posix(), path, cache=IMMUTABLE)


def measured(open_store: Callable[[str], Any], repeat: int) -> dict[str, tuple[float, int]]:
    """Median milliseconds and requests of every read."""

    def opened(name: str) -> xr.Dataset:
        return xr.open_zarr(Counting(open_store(name)), chunks=None, consolidated=True)

    found = {}
    for name, (store, selection) in READS.items():
        spent = []
        for _ in range(repeat + 1):
            dataset = opened(store)
            Counting.requests, started = 0, time.perf_counter()
            if selection is None:
                opened(store)
            else:
                assert np.isfinite(dataset["2m_temperature"].isel(selection).values).all()
            spent.append((time.perf_counter() - started) * 1e3)
        found[name] = (statistics.median(spent[1:]), Counting.requests)
    return found


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--leads", type=int, default=41)
    parser.add_argument("--repeat", type=int, default=9)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mosaic-reading-"))
    make(folder / "stores", chosen.members, chosen.leads)
    sizes = {
        path.name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
        for path in (folder / "stores").iterdir()
    }
    tables = {"local": measured(lambda n: LocalStore(folder / "stores" / n), chosen.repeat)}
    (folder / "server").mkdir()
    with servers.seaweedfs(folder / "server") as server, server.environment():
        address = server.fresh_root()
        upload(folder / "stores", address)
        bucket, _, prefix = address.removeprefix("s3://").partition("/")

        def with_obstore(name: str) -> ObjectStore:
            return ObjectStore(
                obstore.store.S3Store(
                    bucket, prefix=f"{prefix}/{name}", client_options={"allow_http": True}
                ),
                read_only=True,
            )

        def with_s3fs(name: str) -> FsspecStore:
            options = {"endpoint_url": server.endpoint}
            return FsspecStore.from_url(
                f"{address}/{name}", storage_options=options, read_only=True
            )

        tables["S3, obstore"] = measured(with_obstore, chosen.repeat)
        tables["S3, s3fs"] = measured(with_s3fs, chosen.repeat)
    shutil.rmtree(folder)
    print(f"{'read':48}" + "".join(f"{name:>16} req" for name in tables))
    for name in READS:
        cells = "".join(f"{t[name][0]:13.1f} ms {t[name][1]:4}" for t in tables.values())
        print(f"{name:48}{cells}")
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "device": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "load": os.getloadavg(),
        "versions": {p: version(p) for p in ("zarr", "xarray", "obstore", "s3fs")},
        "members": chosen.members,
        "leads": chosen.leads,
        "stored_mb": sizes,
        "milliseconds_and_requests": tables,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
