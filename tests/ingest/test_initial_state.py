from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest.archive import append_analysis
from ingest.initial_state import GapPolicy, initial_state
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError
from mosaic_core.contract.schema import INITIAL_STATE, channels_to_dataset


def made(cycle: Cycle, value: float, source: str) -> xr.Dataset:
    planes = np.full((1, 82, 121, 240), value, np.float32)
    return channels_to_dataset(planes, {"time": [cycle.init_time]}).assign_attrs(source=source)


@pytest.fixture
def archive(tmp_path: Path, cycle: Cycle) -> Path:
    """T-18, T-6 and T; T-12 is missing."""
    path = tmp_path / "analyses.zarr"
    for hours in (-18, -6, 0):
        append_analysis(path, made(cycle.shift(hours), float(hours), "aws"))
    return path


@pytest.fixture
def fills(tmp_path: Path, cycle: Cycle) -> Path:
    """Forecasts for T-12, T and T+6."""
    path = tmp_path / "fills.zarr"
    for hours in (-12, 0, 6, 12):
        append_analysis(path, made(cycle.shift(hours), 100.0 + hours, "google"))
    return path


def test_a_gap_is_refused_without_fills(archive: Path, cycle: Cycle) -> None:
    with pytest.raises(ArchiveError, match="1 of 4 analyses are missing: 2026-11-22T12Z") as caught:
        initial_state(cycle, archive, 4, 6)
    assert "mosaic-ops ingest 2026-11-22T12Z (with --fill" in caught.value.remedy


def test_one_slot_may_be_a_forecast_and_says_so(archive: Path, fills: Path, cycle: Cycle) -> None:
    state = initial_state(cycle, archive, 4, 6, fills=fills)
    assert INITIAL_STATE.faults(state) == []
    assert state["origin"].values.tolist() == ["analysis", "6-h forecast", "analysis", "analysis"]
    assert state["2m_temperature"].values[:, 0, 0].tolist() == [-18.0, 88.0, -6.0, 0.0]
    assert "2026-11-22T12Z 6-h forecast from google" in state.attrs["slots"]
    assert [json.loads(str(p))["source"] for p in state["provenance"].values] == [
        "aws", "google", "aws", "aws",
    ]  # fmt: skip


def test_an_analysis_is_preferred_to_a_forecast(archive: Path, fills: Path, cycle: Cycle) -> None:
    state = initial_state(cycle, archive, 2, 6, fills=fills)
    assert state["origin"].values.tolist() == ["analysis", "analysis"]


def test_the_newest_slot_is_never_a_forecast_by_default(
    archive: Path, fills: Path, cycle: Cycle
) -> None:
    with pytest.raises(ArchiveError, match="2026-11-23T06Z") as caught:
        initial_state(cycle.shift(6), archive, 2, 6, fills=fills)
    assert "--fill" not in caught.value.remedy
    policy = GapPolicy(forecast_fills=1, fill_newest=True)
    state = initial_state(cycle.shift(6), archive, 2, 6, fills=fills, policy=policy)
    assert state["origin"].values.tolist() == ["analysis", "6-h forecast"]


def test_more_gaps_than_the_policy_allows_are_all_named(
    archive: Path, fills: Path, cycle: Cycle
) -> None:
    with pytest.raises(ArchiveError, match="2 of 4") as caught:
        initial_state(cycle.shift(6), archive, 4, 6, fills=fills)
    assert "2026-11-22T12Z, 2026-11-23T06Z" in caught.value.what


def test_the_strictest_policy_takes_analyses_only(archive: Path, fills: Path, cycle: Cycle) -> None:
    with pytest.raises(ArchiveError, match="2026-11-22T12Z"):
        initial_state(cycle, archive, 4, 6, fills=fills, policy=GapPolicy(forecast_fills=0))
