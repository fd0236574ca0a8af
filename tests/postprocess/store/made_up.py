"""A small made-up forecast, and a writer of it that can be run (and killed) as a program."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.forecast_spec import ForecastSpec
from postprocess.provenance import Provenance
from postprocess.rounding import bit_round, mantissa_bits
from postprocess.store import ForecastWriter

INIT_TIME = np.datetime64("2026-11-23T00", "ns")
SECOND = timedelta(seconds=1)


def provenance(run_id: str = "test-run") -> Provenance:
    return Provenance(
        run_id=run_id,
        created="2026-11-23T06:00:00Z",
        model_variant="mini",
        weights_sha256="0" * 64,
        code_version="0.1.0",
        input_analyses=("2026-11-23T00Z from made-up, gate passed",),
        comment="made up",
    )


def spec(
    members: int = 2,
    leads: int = 3,
    rounding: str = "default",
    init_time: np.datetime64 = INIT_TIME,
) -> ForecastSpec:
    hours = [np.timedelta64(6 * lead, "h").astype("timedelta64[ns]") for lead in range(leads)]
    return ForecastSpec(init_time, tuple(range(members)), tuple(hours), provenance(), rounding)


def round_maps(fields: np.ndarray, rounding: str = "default") -> None:
    """Round (number, channel, ...) in place, as forecasts that go into a store are."""
    for index, bits in enumerate(mantissa_bits(rounding) or ()):
        for values in fields[:, index]:
            bit_round(values, bits)


def steps(of: ForecastSpec, seed: int = 0) -> Iterator[ForecastStep]:
    """Smooth fields that differ by member, channel and lead; the buffer is reused on purpose."""
    phase = np.linspace(0, 2 * np.pi, 240, endpoint=False)[None, :]
    height = np.linspace(-1, 1, 121)[:, None]
    fields = np.empty((len(of.numbers), len(CHANNEL_NAMES), 121, 240), dtype=np.float32)
    for step, lead in enumerate(of.lead_times):
        for member in range(len(of.numbers)):
            for channel in range(len(CHANNEL_NAMES)):
                shift = member * (step > 0) + 0.3 * channel + 0.1 * step + seed
                fields[member, channel] = 280 + 20 * height + np.sin(3 * phase + shift)
        round_maps(fields, of.rounding)
        yield ForecastStep(of.init_time, step, lead, of.numbers, CHANNEL_NAMES, fields)
        fields[:] = np.nan


def expected(of: ForecastSpec, seed: int = 0) -> np.ndarray:
    """Every field, (lead, number, channel, latitude, longitude)."""
    return np.stack([step.fields.copy() for step in steps(of, seed)])


if __name__ == "__main__":
    target, members, leads, pause = Path(sys.argv[1]), *map(float, sys.argv[2:5])
    wanted = spec(int(members), int(leads))
    with ForecastWriter(target, wanted) as writer:
        for item in steps(wanted):
            writer.write(item)
            time.sleep(pause)
