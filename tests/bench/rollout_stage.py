"""The ensemble stage as a cycle runs it: rollout, store and products side by side.

    python tests/bench/rollout_stage.py era5 --members 24 --steps 10 --device cuda

Random weights of the published sizes: an untrained network makes noise, in which every second point
is a candidate for a cyclone, so what reaches store and products is a lagged ensemble of the made-up
atmosphere instead, the same at every lead. Figures and publishing are left out. Says how long the
last lead took to be stored, and where the time went: waiting for the device, storing, or handing
over to the products. Then the rollout alone, for comparison. Prints a table and writes
tests/bench/results/rollout_stage_VARIANT.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from flows import ensemble
from flows.provenance import code_version
from flows.settings import Settings
from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.benchmark import device_name, versions
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.model.checkpoint import write_random_bundle
from mosaic_core.model.config import builtin_config
from mosaic_core.model.placement import placement
from mosaic_core.rounding import bit_rounded
from postprocess.product_store import write_product
from postprocess.rounding import mantissa_bits

RESULTS = Path(__file__).parent / "results"
CYCLE = Cycle.parse("2026-01-01T00Z")


def make_inputs(settings: Settings, state_path: Path) -> None:
    """Weights of the published sizes and an initial state."""
    config = builtin_config(settings.variant)
    times = CYCLE.init_time + np.timedelta64(config.step_hours, "h") * np.arange(
        1 - config.num_history_steps, 1
    )
    air = Atmosphere.model()
    fields = np.stack([air.fields(time) for time in times])
    mean, deviation = fields.mean(axis=(0, 2, 3)), fields.std(axis=(0, 2, 3))
    static = np.random.default_rng(3).random((240, 121, 3), np.float32)
    write_random_bundle(
        settings.weights, config, 7, mean, deviation, static, variant=settings.variant
    )
    said = [json.dumps({"sha256": f"{place:064d}"}) for place in range(len(times))]
    state = channels_to_dataset(fields, {"time": times}).assign_coords(
        provenance=("time", np.array(said)), origin=("time", np.array(["analysis"] * len(times)))
    )
    write_product(state_path, state, {})


def lagged_ensemble(settings: Settings) -> np.ndarray:
    """(number, channel, latitude, longitude), a member each hour, rounded as the store wants it."""
    air = Atmosphere.model()
    hours = (CYCLE.init_time + np.timedelta64(number, "h") for number in settings.numbers)
    fields = torch.from_numpy(np.stack([air.fields(hour) for hour in hours]))
    return bit_rounded(fields, mantissa_bits(settings.rounding)).numpy()


class Clock:
    """Where the thread that drives the stage spends its time."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.prepared = self.stored = 0.0
        self.waited: list[float] = []

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def watching(self, stream: Iterator[ForecastStep]) -> Iterator[ForecastStep]:
        self.prepared = self.elapsed()
        while True:
            before = time.perf_counter()
            step = next(stream, None)
            self.waited.append(time.perf_counter() - before)
            if step is None:
                return
            yield step

    def finishing(self) -> AbstractContextManager[object]:
        self.stored = self.elapsed()
        return nullcontext()


def measure(variant: str, members: int, steps: int, device: str, folder: Path) -> dict[str, Any]:
    """One run of the stage, then the same rollout with a receiver that does nothing."""
    hours = builtin_config(variant).step_hours
    settings = Settings(
        data_root=folder, variant=variant, members=members, lead_hours=hours * steps, device=device
    )
    state = folder / "state.zarr"
    make_inputs(settings, state)
    ensemble.draw_figures = lambda *_: None  # type: ignore[assignment]
    fields = lagged_ensemble(settings)
    clock, stream, seen = Clock(), ensemble.EnsembleRun.stream, []

    def watched(run: ensemble.EnsembleRun, writer: Any) -> Iterator[ForecastStep]:
        seen.append((run, writer))
        return (replace(step, fields=fields) for step in clock.watching(stream(run, writer)))

    ensemble.EnsembleRun.stream = watched  # type: ignore[method-assign]
    ensemble.run_ensemble(CYCLE, state, settings, lambda *_: None, clock.finishing)
    finished = clock.elapsed()
    run, writer = seen[0]
    alone = time.perf_counter()
    for _ in run.forecaster.forecast(run.state, numbers=settings.numbers, steps=settings.steps):
        pass
    rolled = time.perf_counter() - alone
    return {
        "variant": variant,
        "members": members,
        "steps": steps,
        "seconds": {
            "to load the model": round(clock.prepared, 2),
            "first to last lead stored": round(clock.stored - clock.prepared, 2),
            "of it waiting for the device": round(sum(clock.waited), 2),
            "of it storing": round(writer.report.seconds_blocked, 2),
            "products after the last lead": round(finished - clock.stored, 2),
            "the rollout alone": round(rolled, 2),
        },
        "seconds_waiting_for_each_lead": [round(wait, 3) for wait in clock.waited],
        "device": device_name(placement(device)[0]),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=["era5", "hres", "mini"])
    parser.add_argument("--members", type=int, default=24)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--commit", default="", help="of the code; by default asked of git")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        report = measure(
            chosen.variant, chosen.members, chosen.steps, chosen.device, Path(folder)
        ) | {"commit": chosen.commit or code_version()}
    for name, seconds in report["seconds"].items():
        print(f"{name:32} {seconds:8.2f} s")
    print("waiting for each lead", report["seconds_waiting_for_each_lead"])
    path = chosen.results / f"rollout_stage_{chosen.variant}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
