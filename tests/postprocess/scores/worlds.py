"""Analyses and published forecasts of a made-up world, small enough for tests of scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from dataclasses import field as field_
from pathlib import Path

import numpy as np
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNEL_NAMES, CHANNELS
from postprocess.forecast_spec import ForecastSpec
from postprocess.provenance import Provenance
from postprocess.publish import publish
from postprocess.store import ForecastWriter

MEMBERS, LEADS = 4, 3


def field(cycle: Cycle, error: float = 0.0, seed: int = 0) -> np.ndarray:
    """(channel, latitude, longitude): a wave that travels, and noise of that amplitude."""
    hours = float((cycle.init_time - np.datetime64("2026-11-23T00")) / np.timedelta64(1, "h"))
    wave = np.cos(np.deg2rad(LATITUDE))[:, None] * np.sin(np.deg2rad(3 * LONGITUDE - 5 * hours))
    noise = np.random.default_rng(seed).normal(0, error, (len(CHANNELS), 121, 240))
    return (280 + 10 * wave[None] + noise).astype(np.float32)


def analysis(cycle: Cycle) -> xr.Dataset:
    """The truth at `cycle`, as the archive takes and gives it."""
    return channels_to_dataset(field(cycle)[None], {"time": [cycle.init_time]})


@dataclass
class Analyses:
    """Analyses as an archive gives them: all but `absent`, none for those `damaged`.

    `corrected` are cycles whose values were replaced: warmer by one unit.
    """

    absent: set[Cycle] = field_(default_factory=set)
    damaged: set[Cycle] = field_(default_factory=set)
    corrected: set[Cycle] = field_(default_factory=set)
    reads: list[Cycle] = field_(default_factory=list)

    def sha256(self, cycle: Cycle) -> str | None:
        text = f"{cycle} {cycle in self.corrected}"
        return None if cycle in self.absent else hashlib.sha256(text.encode()).hexdigest()

    def read(self, cycle: Cycle) -> xr.Dataset | None:
        self.reads.append(cycle)
        if cycle in self.damaged:
            raise ArchiveError("the stored values do not match their digest", where=str(cycle))
        if cycle in self.absent:
            return None
        return analysis(cycle) + 1 if cycle in self.corrected else analysis(cycle)


def publish_forecast(
    root: str,
    cycle: Cycle,
    folder: Path,
    *,
    error: float = 2.0,
    run_id: str = "run-1",
    sick: tuple[str, ...] = (),
) -> None:
    """A forecast whose members are the truth with independent errors, published.

    `sick` has a line for each member that was quarantined.
    """
    hours = [np.timedelta64(6 * lead, "h").astype("timedelta64[ns]") for lead in range(LEADS)]
    provenance = Provenance(
        run_id=run_id, created="2026-11-23T06:00:00Z", model_variant="mini",
        weights_sha256="0" * 64, code_version="0.1.0", input_analyses=("made up",), comment="",
        member_health=sick,
    )  # fmt: skip
    spec = ForecastSpec(cycle.init_time, tuple(range(MEMBERS)), tuple(hours), provenance, "none")
    with ForecastWriter(folder / "forecast.zarr", spec) as writer:
        for step, lead in enumerate(hours):
            valid = cycle.shift(6 * step)
            members = np.stack([field(valid, error, seed) for seed in range(MEMBERS)])
            writer.write(
                ForecastStep(cycle.init_time, step, lead, spec.numbers, CHANNEL_NAMES, members)
            )
    publish(folder, root, cycle=cycle, run_id=run_id)
