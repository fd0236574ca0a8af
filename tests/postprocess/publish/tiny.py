"""Tiny staged forecasts (a dozen objects), and a publisher of them that can be killed."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from postprocess.product_store import write_product
from postprocess.publish import publish

CYCLE = Cycle.parse("2026-11-23T00Z")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def forecast(cycle: Cycle = CYCLE, members: int = 2, leads: int = 3, seed: int = 0) -> xr.Dataset:
    values = np.random.default_rng(seed).normal(280, 9, (1, members, leads, 6, 12))
    lead = (np.arange(leads) * 6).astype("timedelta64[h]").astype("timedelta64[ns]")
    init = np.array([cycle.init_time])
    return xr.Dataset(
        {
            "2m_temperature": (
                ("init_time", "number", "lead_time", "latitude", "longitude"),
                values.astype(np.float32),
            )
        },
        coords={
            "init_time": init,
            "number": np.arange(members),
            "lead_time": lead,
            "valid_time": (("init_time", "lead_time"), init[:, None] + lead[None, :]),
            "latitude": np.linspace(-75, 75, 6),
            "longitude": np.arange(12) * 30.0,
        },
    )


def stage(folder: Path, cycle: Cycle = CYCLE, run_id: str = "run-1", **options: int) -> Path:
    """A folder as the flow stages it: the forecast, a product beside it, and a table."""
    dataset = forecast(cycle, **options)
    attributes = {"cycle": cycle.label, "run_id": run_id, "title": "tiny"}
    write_product(folder / "forecast.zarr", dataset, attributes)
    write_product(folder / "ensemble.zarr", dataset.mean("number").astype("float32"), attributes)
    (folder / "cyclones.geojson").write_text('{"type": "FeatureCollection", "features": []}\n')
    return folder


def publish_in_child(
    environment: dict[str, str], staged: Path, address: str, cycle: str, run_id: str
) -> None:
    """What a publisher process does; its parent's environment is told to it."""
    os.environ.update(environment)
    publish(staged, address, cycle=Cycle.parse(cycle), run_id=run_id)


if __name__ == "__main__":
    staged, address, cycle_text, name = sys.argv[1:]
    publish(Path(staged), address, cycle=Cycle.parse(cycle_text), run_id=name)
