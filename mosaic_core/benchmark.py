"""How fast the rollout is on this machine: what `mosaic-ops model bench` prints and records."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.devices import forecast_on
from mosaic_core.model.checkpoint import load_model, write_random_bundle
from mosaic_core.model.config import ModelConfig, builtin_config
from mosaic_core.model.fast import FastEngine, accelerated
from mosaic_core.model.fast_cost import step_flops
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.placement import placement
from mosaic_core.rollout import forecast

INIT_TIME = np.datetime64("2026-01-01T00", "ns")
WAVES = 6  # of a made-up field: smooth, so that neighbours resemble each other
MATRIX = 8192
REPEATS = 20

MakeEngine = Callable[..., FastEngine | None]  # of a model, a device and members


@dataclass(frozen=True)
class BenchReport:
    """One run. Times are what the receiver on the host sees; memory is the allocator's peak.

    `first_step_seconds` is from nothing loaded to step 1 on the host; `again_seconds` the same
    once more with the kernels compiled; `rollout_seconds` from the initial state on the host to
    the last step on the host.
    """

    variant: str
    members: int
    steps: int
    batch_size: int
    precision: str
    device: str
    gpus: int
    versions: dict[str, str]
    commit: str
    date: str
    first_step_seconds: float
    again_seconds: float
    rollout_seconds: float
    ms_per_member_step: float
    tflops: float
    matmul_tflops: float
    peak_memory_gib: float

    @property
    def share_of_matmul(self) -> float:
        """Speed of the rollout over that of a large matrix product in the same run."""
        return self.tflops / self.matmul_tflops

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return asdict(self) | {"share_of_matmul": round(self.share_of_matmul, 3)}


def run_benchmark(
    variant: str,
    *,
    weights: Path,
    members: int,
    steps: int,
    device: str = "auto",
    gpus: int = 1,
    batch_size: int | None = None,
    precision: str = "float16",
    commit: str = "",
) -> BenchReport:
    """Load `variant` from the bundle `weights` and roll `members` out for `steps` steps.

    With `gpus` above 1 the members are split over that many; the speed is then that of all.
    `commit` is that of the code, and only recorded.
    InputError for counts too small to measure (three steps at least).
    """
    if members < 1 or steps < 3:
        raise InputError(f"{members} members, {steps} steps: at least one member and three steps")
    place, _ = placement(device)
    places = [torch.device("cuda", index) for index in range(gpus)] if gpus > 1 else [place]
    config = builtin_config(variant)
    state = smooth_state(config)
    make = partial(accelerated, batch_size=batch_size, precision=precision)
    first = _time_first_step(weights, variant, place, state, make)
    again = _time_first_step(weights, variant, place, state, make)
    model = load_model(weights, variant)
    arrivals, batch, memory = _time_rollout(model, state, places, members, steps, make)
    # Images come one step behind, the last one at once: steps 1 to the last but one are even.
    each = (arrivals[-2] - arrivals[1]) / (steps - 2) / members
    return BenchReport(
        variant=variant,
        members=members,
        steps=steps,
        batch_size=batch,
        precision=precision if place.type == "cuda" else "float32",
        device=device_name(place),
        gpus=gpus,
        versions=versions(),
        commit=commit,
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        first_step_seconds=round(first, 2),
        again_seconds=round(again, 2),
        rollout_seconds=round(arrivals[-1], 3),
        ms_per_member_step=round(each * 1e3, 2),
        tflops=round(step_flops(config, model.geometry.points)[0] / each / 1e12, 4),
        matmul_tflops=round(matmul_tflops(place), 4),
        peak_memory_gib=round(memory / 2**30, 2),
    )


def _time_first_step(
    weights: Path, variant: str, device: torch.device, state: xr.Dataset, make: MakeEngine
) -> float:
    start = time.perf_counter()
    model = load_model(weights, variant)
    for _ in _steps(model, state, [device], (0,), 1, make)[0]:
        pass
    return time.perf_counter() - start


def _time_rollout(
    model: Mosaic,
    state: xr.Dataset,
    devices: list[torch.device],
    members: int,
    steps: int,
    make: MakeEngine,
) -> tuple[list[float], int, int]:
    """Arrival of every step in seconds after the call, members of a batch, peak memory."""
    gpus = [device for device in devices if device.type == "cuda"]
    for gpu in gpus:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(gpu)
    warm, size, again = _steps(model, state, devices, range(members), 1, make)
    for _ in warm:
        pass
    start = time.perf_counter()
    arrivals = [time.perf_counter() - start for _ in again(steps)]
    memory = max((torch.cuda.max_memory_reserved(gpu) for gpu in gpus), default=0)
    return arrivals, size, memory


def _steps(
    model: Mosaic,
    state: xr.Dataset,
    devices: list[torch.device],
    numbers: tuple[int, ...] | range,
    steps: int,
    make: MakeEngine,
) -> tuple[Iterator[object], int, Callable[[int], Iterator[object]]]:
    """A rollout, the members of its batches, and how to start another with the same engines."""
    share = -(-len(numbers) // len(devices))
    made = [make(model, device, members=share) for device in devices]
    engines = [engine for engine in made if engine is not None]

    def run(count: int) -> Iterator[object]:
        if engines:
            return forecast_on(engines, model, state, numbers=numbers, steps=count)
        return forecast(model, state, numbers=numbers, steps=count)

    return run(steps), (engines[0] if engines else model).batch_size, run


def smooth_state(config: ModelConfig, seed: int = 0) -> xr.Dataset:
    """A made-up history of smooth waves about zero with unit variance, an INITIAL_STATE dataset."""
    random = np.random.default_rng(seed)
    times = config.num_history_steps
    fields = np.zeros((times, len(config.variables), LATITUDE.size, LONGITUDE.size), np.float32)
    lat, lon = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None, :]
    for field in fields.reshape(-1, LATITUDE.size, LONGITUDE.size):
        for zonal, meridional in random.integers(0, 12, (WAVES, 2)):
            turn = random.uniform(0, 2 * np.pi, 2)
            field += np.cos(zonal * lon + turn[0]) * np.cos(meridional * lat + turn[1])
    fields *= 2 / np.sqrt(WAVES)
    spacing = np.timedelta64(config.step_hours, "h")
    return channels_to_dataset(fields, {"time": INIT_TIME + spacing * np.arange(1 - times, 1)})


def random_bundle(directory: Path, variant: str, seed: int = 0) -> Path:
    """A bundle of random weights of the built-in sizes; it says of itself that it is untrained."""
    config = builtin_config(variant)
    channels = len(config.variables)
    statics: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(
        (LONGITUDE.size, LATITUDE.size, len(config.static_variables)), np.float32
    )
    write_random_bundle(
        directory, config, seed, np.zeros(channels), np.ones(channels), statics, variant=variant
    )
    return directory


def matmul_tflops(device: torch.device) -> float:
    """Rate of a square matrix product of 8192 (GPU) in the rollout's type, 10^12 per second."""
    size, dtype = (MATRIX, torch.float16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    _synchronize(a @ b)
    start = time.perf_counter()
    for _ in range(REPEATS):
        product = a @ b
    _synchronize(product)
    return REPEATS * 2 * size**3 / (time.perf_counter() - start) / 1e12


def _synchronize(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize(result.device)


def device_name(device: torch.device) -> str:
    """Name of the GPU, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions that decide about speed."""
    found = {"torch": torch.__version__, "cuda": str(torch.version.cuda), "numpy": np.__version__}
    try:
        import triton
    except ImportError as error:
        raise ModelError("Triton is not installed", remedy="pip install triton") from error
    return found | {"triton": triton.__version__}
