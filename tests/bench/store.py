"""Writing a forecast: our writer, plain to_zarr, zarr without shards, and the codec alone.

    python tests/bench/store.py [--members N] [--leads N] [--repeat N] [--folder DIR]

Fields have the spectra of real analyses (tests/postprocess/store/realistic.py). Every way writes
the same float32 fields in this one run, in turn, N times; the table has medians. Wall and CPU
seconds go until the files are written, `sync s` until they are on the disk: our writer waits for
that itself, to_zarr does not. CPU seconds are those of the whole process and suffer less on a busy
machine. Our writer and the ways with our codecs get fields rounded and in the order of the store,
as the rollout hands them over; turning and rounding, which a GPU does in passing, has a line of its
own for the CPU. The codec alone is blosc-zstd with byte shuffle and its CRC on the same
maps, in one thread per core: the limit of our writer. Bare appends are the same and one writev
for every map into files that are open, nothing else: what the file system leaves of that limit.
Plain to_zarr gets fields that are not rounded, as anybody would write them. Writes
tests/bench/results/store.json.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

sys.path[:0] = [
    str(Path(__file__).parents[2]),
    str(Path(__file__).parents[1] / "postprocess/store"),
]

import made_up  # noqa: E402
import realistic  # noqa: E402

from mosaic_core.contract.artifacts import ForecastStep  # noqa: E402
from mosaic_core.contract.grid import LATITUDE, LONGITUDE  # noqa: E402
from mosaic_core.contract.schema import channels_to_dataset  # noqa: E402
from mosaic_core.contract.variables import CHANNEL_NAMES, CHANNELS  # noqa: E402
from mosaic_core.rounding import bit_rounded  # noqa: E402
from postprocess.rounding import mantissa_bits  # noqa: E402
from postprocess.shards import BLOCK_BYTES, COMPRESSION_LEVEL, encode_parts  # noqa: E402
from postprocess.store import ForecastWriter  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PAUSE_S = 6.0
PACKAGES = ("numpy", "xarray", "zarr", "numcodecs", "google-crc32c", "zarrs")
CODEC, BARE, OURS, PLAIN = "codec alone", "bare appends", "our writer", "to_zarr, defaults"
ZARRS = "zarrs.ZarrsCodecPipeline"
RIVAL_LEADS = 4  # the rivals hold their whole dataset in memory; rates are per MB
FULL_CYCLE_MAPS = 24 * 41 * 82


@dataclass(frozen=True)
class Timing:
    """One way of writing: medians over the repeats."""

    name: str
    wall_s: float
    cpu_s: float
    sync_s: float
    float32_mb: float
    stored_mb: float

    @property
    def mb_per_cpu_s(self) -> float:
        """float32 in per CPU second."""
        return self.float32_mb / self.cpu_s

    @property
    def mb_per_wall_s(self) -> float:
        """float32 in per second."""
        return self.float32_mb / self.wall_s


def make_fields(members: int, leads: int = RIVAL_LEADS) -> list[np.ndarray]:
    """Per lead (number, channel, latitude, longitude); turned copies of a few made fields."""
    made = [realistic.fields(seed) for seed in range(3)]
    turn = np.random.default_rng(0)
    return [
        np.stack([np.roll(made[(m + s) % 3], turn.integers(240), axis=2) for m in range(members)])
        for s in range(leads)
    ]


def our_writer(fields: list[np.ndarray], folder: Path) -> float:
    """ForecastWriter with one worker per core, as the pipeline uses it; its seconds of syncing."""
    spec = made_up.spec(members=len(fields[0]), leads=len(fields))
    with ForecastWriter(folder / "forecast.zarr", spec) as writer:
        for step, lead in enumerate(spec.lead_times):
            writer.write(
                ForecastStep(spec.init_time, step, lead, spec.numbers, CHANNEL_NAMES, fields[step])
            )
    return writer.report.seconds_syncing


def plain_to_zarr(dataset: xr.Dataset, folder: Path) -> float:
    """Dataset.to_zarr with its defaults."""
    dataset.to_zarr(folder / "plain.zarr")
    return 0.0


def our_codecs(dataset: xr.Dataset, folder: Path, *, sharded: bool, pipeline: str = "") -> float:
    """to_zarr with our chunks and codecs: one file per map, or our shards through a pipeline."""
    codecs = [
        BloscCodec(
            typesize=4,
            cname="zstd",
            clevel=COMPRESSION_LEVEL,
            shuffle="shuffle",
            blocksize=BLOCK_BYTES,
        ),
        Crc32cCodec(),
    ]
    encoding = {}
    for name, array in dataset.data_vars.items():
        chunk = (1,) * (array.ndim - 2) + array.shape[-2:]
        encoding[name] = {"chunks": chunk, "compressors": codecs}
        if sharded:
            leads = dataset.sizes["lead_time"]
            encoding[name]["shards"] = tuple(
                leads if dim == "lead_time" else size
                for dim, size in zip(array.dims, chunk, strict=True)
            )
    with zarr.config.set({"codec_pipeline.path": pipeline} if pipeline else {}):
        dataset.to_zarr(folder / "ours.zarr", encoding=encoding)
    return 0.0


def turned_and_rounded(fields: list[np.ndarray], folder: Path) -> float:
    """What `mosaic_core.rollout.image` does to a state of the model, here on the CPU."""
    del folder
    bits = mantissa_bits("default")
    for lead in fields:
        members, channels = lead.shape[:2]
        state = torch.from_numpy(lead).view(members, channels, len(LONGITUDE), len(LATITUDE))
        bit_rounded(state.mT.contiguous(), bits)
    return 0.0


def ready_fields(made: list[np.ndarray], leads: int) -> list[np.ndarray]:
    """Rounded as they are stored; one array for many leads, so that a cycle fits into memory."""
    bits = mantissa_bits("default")
    ready = [bit_rounded(torch.from_numpy(lead), bits).numpy() for lead in made]
    return [ready[lead % len(ready)] for lead in range(leads)]


def _dataset(fields: list[np.ndarray]) -> xr.Dataset:
    array = np.stack(fields, axis=1)
    leading = {"number": np.arange(array.shape[0]), "lead_time": np.arange(array.shape[1])}
    return channels_to_dataset(array, leading)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def in_threads(work: Callable[[int, np.ndarray], object], fields: list[np.ndarray]) -> None:
    """`work` on the number of its shard and every map, lead by lead, in one thread per core."""
    cores = len(os.sched_getaffinity(0))

    def share(first: int) -> None:
        for lead in fields:
            maps = lead.reshape(-1, *lead.shape[2:])
            for shard in range(first, len(maps), cores):
                work(shard, maps[shard])

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(share, range(cores)))


def codec_alone(fields: list[np.ndarray], folder: Path) -> float:
    """Pack every map; nothing is written."""
    del folder
    in_threads(lambda _, values: encode_parts(values), fields)
    return 0.0


def bare_appends(fields: list[np.ndarray], folder: Path) -> float:
    """Pack every map and append it to a file."""
    paths = [folder / str(shard) for shard in range(fields[0].shape[0] * len(CHANNELS))]
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("ab", buffering=0)) for path in paths]
        handles = [file.fileno() for file in files]
        in_threads(lambda shard, values: os.writev(handles[shard], encode_parts(values)), fields)
    return 0.0


def once(work: Callable[[Path], float], parent: Path) -> tuple[float, float, float, int]:
    """Wall and CPU seconds, seconds of syncing, and bytes stored of one run in a fresh folder."""
    time.sleep(PAUSE_S)
    folder = Path(tempfile.mkdtemp(prefix="mosaic-bench-", dir=parent))
    os.sync()
    started, cpu = time.perf_counter(), time.process_time()
    synced = work(folder)
    wall, spent = time.perf_counter() - started - synced, time.process_time() - cpu
    started = time.perf_counter()
    os.sync()
    found = wall, spent, synced + time.perf_counter() - started, _size(folder)
    shutil.rmtree(folder)
    return found


def file_system(folder: Path) -> str:
    """Its kind."""
    asked = ["stat", "--file-system", "--format=%T", str(folder)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def measure(members: int, leads: int, repeat: int, parent: Path) -> list[Timing]:
    """Medians of every way, taken in turn so that the machine's moods meet all of them."""
    made = make_fields(members)
    fields = ready_fields(made, leads)
    plain, rounded = _dataset(made), _dataset(fields[:RIVAL_LEADS])
    few = range(RIVAL_LEADS)
    ways: dict[str, tuple[Callable[[Path], float], int]] = {
        CODEC: (lambda folder: codec_alone(fields, folder), len(fields)),
        BARE: (lambda folder: bare_appends(fields, folder), len(fields)),
        OURS: (lambda folder: our_writer(fields, folder), len(fields)),
        "turning and rounding": (lambda folder: turned_and_rounded(made, folder), len(few)),
        PLAIN: (lambda folder: plain_to_zarr(plain, folder), len(few)),
        "to_zarr, our codecs, unsharded": (
            lambda folder: our_codecs(rounded, folder, sharded=False),
            len(few),
        ),
        "to_zarr, our codecs and shards": (
            lambda folder: our_codecs(rounded, folder, sharded=True),
            len(few),
        ),
        "the same, zarrs pipeline": (
            lambda folder: our_codecs(rounded, folder, sharded=True, pipeline=ZARRS),
            len(few),
        ),
    }
    runs = {name: [] for name in ways}
    for _ in range(repeat):
        for name, (work, _) in ways.items():
            runs[name].append(once(work, parent))
    lead_mb = fields[0].nbytes / 1e6
    return [
        Timing(
            name,
            *(statistics.median(run[place] for run in runs[name]) for place in range(3)),
            lead_mb * count,
            runs[name][0][3] / 1e6,
        )
        for name, (_, count) in ways.items()
    ]


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--leads", type=int, default=41)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--name", default="store", help="of the file of results")
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    found = measure(chosen.members, chosen.leads, chosen.repeat, chosen.folder)
    by_name = {timing.name: timing for timing in found}
    ours, plain, codec, bare = (by_name[name] for name in (OURS, PLAIN, CODEC, BARE))
    maps = chosen.members * chosen.leads * len(CHANNELS)
    summary = {
        "share_of_codec_limit_by_cpu": ours.mb_per_cpu_s / codec.mb_per_cpu_s,
        "share_of_codec_limit_by_wall": ours.mb_per_wall_s / codec.mb_per_wall_s,
        "share_of_bare_appends_by_cpu": ours.mb_per_cpu_s / bare.mb_per_cpu_s,
        "share_of_bare_appends_by_wall": ours.mb_per_wall_s / bare.mb_per_wall_s,
        "times_plain_to_zarr_by_cpu": ours.mb_per_cpu_s / plain.mb_per_cpu_s,
        "times_plain_to_zarr_by_wall": ours.mb_per_wall_s / plain.mb_per_wall_s,
        "bytes_per_cycle_gb": ours.stored_mb * FULL_CYCLE_MAPS / maps / 1e3,
    }
    print(
        f"{'way':30} {'wall s':>8} {'CPU s':>8} {'sync s':>7} "
        f"{'MB/CPU s':>9} {'MB/s wall':>9} {'stored MB':>9}"
    )
    for timing in found:
        print(
            f"{timing.name:30} {timing.wall_s:8.2f} {timing.cpu_s:8.2f} {timing.sync_s:7.2f} "
            f"{timing.mb_per_cpu_s:9.1f} {timing.float32_mb / timing.wall_s:9.1f} "
            f"{timing.stored_mb:9.1f}"
        )
    for name, value in summary.items():
        print(f"{name:32} {value:8.3f}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "device": f"{platform.processor() or platform.machine()}, {cores} cores",
        "load": os.getloadavg(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "file_system": file_system(chosen.folder),
        "members": chosen.members,
        "leads": chosen.leads,
        "zarr": zarr.config.get("codec_pipeline.path"),
        "timings": [asdict(timing) for timing in found],
        "summary": summary,
    }
    (RESULTS / f"{chosen.name}.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
