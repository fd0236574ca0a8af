"""The demonstration as a whole: what it says, what it leaves, what a second run does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flows.demo import CYCLE, NOTICE
from flows.figures import FIGURE_NAMES
from flows.forecast import forecast_cycle
from flows.progress import LogReporter
from flows.receipts import receipts_of
from flows.settings import Settings
from postprocess.publish import read_pointer
from tests.factories import MEMBERS, STEPS, DemoFolder

pytestmark = pytest.mark.e2e


def test_everything_is_there_and_opens(finished: DemoFolder) -> None:
    forecast = xr.open_zarr(finished.run / "forecast.zarr")
    assert dict(forecast.sizes) == {
        "init_time": 1,
        "number": MEMBERS,
        "lead_time": STEPS + 1,
        "level": 13,
        "latitude": 121,
        "longitude": 240,
    }
    assert forecast["valid_time"].values[0, -1] == CYCLE.init_time + np.timedelta64(6 * STEPS, "h")
    assert bool(np.isfinite(forecast["2m_temperature"].values).all())
    assert forecast.attrs["comment"] == NOTICE
    assert len(forecast.attrs["input_analyses"]) == 4
    assert all(line.endswith("gate pass") for line in forecast.attrs["input_analyses"])
    for name in ("points", "ensemble", "spectra", "initial_state"):
        assert xr.open_zarr(finished.run / f"{name}.zarr").sizes
    for suffix in ("parquet", "csv", "geojson", "nc", "dat"):
        assert (finished.run / f"tracks.{suffix}").exists()
    for name in FIGURE_NAMES:
        assert (finished.run / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_members_start_from_the_analysis_and_part(finished: DemoFolder) -> None:
    forecast = xr.open_zarr(finished.run / "forecast.zarr", chunks=None)
    archive = xr.open_zarr(finished.data / "analyses.zarr", chunks=None)
    started = forecast["geopotential"].isel(init_time=0, lead_time=0)
    analysis = archive["geopotential"].sel(time=CYCLE.init_time)
    np.testing.assert_allclose(started.isel(number=0), analysis, atol=2.0)
    np.testing.assert_array_equal(started.isel(number=0), started.isel(number=1))
    ended = forecast["temperature"].isel(init_time=0, lead_time=-1).sel(level=850)
    assert float(abs(ended.isel(number=0) - ended.isel(number=1)).mean()) > 0.01


def test_the_mean_is_the_mean_of_the_members(finished: DemoFolder) -> None:
    """Up to the rounding of the stored members: 12 bits of the mantissa, 0.03 K at 290 K."""
    forecast = xr.open_zarr(finished.run / "forecast.zarr", chunks=None).isel(init_time=0)
    ensemble = xr.open_zarr(finished.run / "ensemble.zarr", chunks=None)
    mean = forecast["2m_temperature"].mean("number")
    np.testing.assert_allclose(ensemble["2m_temperature_mean"], mean, atol=0.04)


def test_a_second_run_does_nothing_and_says_so(finished: DemoFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.published.rglob("*")}
    output = finished.finish()
    assert "already published" in output
    assert "nothing to do" in output
    assert {path: path.stat().st_mtime_ns for path in finished.published.rglob("*")} == before


def test_again_with_more_members_is_what_readers_get(finished: DemoFolder, tmp_path: Path) -> None:
    """The pointer decides: more members win, and fewer do not take it back."""
    data = shutil.copytree(finished.data, tmp_path / "data")
    more = Settings(
        data_root=data, variant="mini", members=MEMBERS + 1, lead_hours=6 * STEPS, device="cpu",
        mirrors=("made-up=http://127.0.0.1:9",), notice=NOTICE,
    )  # fmt: skip
    left = forecast_cycle(CYCLE, more, LogReporter())
    assert not left.made
    assert f"mini {MEMBERS} members" in left.why
    better = forecast_cycle(CYCLE, more, LogReporter(), again=True)
    assert better.made
    pointer = read_pointer(data / "published")
    assert pointer is not None
    assert better.address == f"{data}/published/{pointer.path}"
    assert pointer.members == MEMBERS + 1
    fewer = more.model_copy(update={"members": MEMBERS})
    worse = forecast_cycle(CYCLE, fewer, LogReporter(), again=True)
    assert (worse.made, worse.address) == (False, better.address)
    assert read_pointer(data / "published") == pointer


def test_every_stage_left_a_receipt(finished: DemoFolder) -> None:
    stages = {each.stage: each.status for each in receipts_of(CYCLE, finished.data / "receipts")}
    assert stages == dict.fromkeys(
        ("wait", "fetch", "gate", "archive", "initial_state", "rollout", "products", "publish"),
        "done",
    )


def test_the_pointer_names_the_run(finished: DemoFolder) -> None:
    pointer = json.loads((finished.published / "latest.json").read_bytes())
    assert pointer["cycle"] == CYCLE.label
    assert pointer["members"] == MEMBERS
    assert pointer["lead_hours"] == 6 * STEPS


def test_the_catalogue_says_what_the_cycle_started_from(finished: DemoFolder) -> None:
    entry = json.loads((finished.published / "index.json").read_bytes())["cycles"][0]
    forecast = xr.open_zarr(finished.run / "forecast.zarr")
    assert entry["input_analyses"] == forecast.attrs["input_analyses"]
    assert all(" analysis from made-up era 50r1 " in line for line in entry["input_analyses"])
