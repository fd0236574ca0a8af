from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from mosaic_core.contract.errors import DataError, ModelError
from mosaic_core.contract.variables import CHANNEL_NAMES
from mosaic_core.model.config import ModelConfig
from mosaic_core.state import Clock, initial_state_from_dataset


@pytest.mark.parametrize(
    ("time", "day", "year"),
    [
        ("2026-01-01T00", 0.0, 0.0),
        ("2026-12-31T18", 0.75, 364 / 365),
        ("2024-12-31T06", 0.25, 365 / 366),
        ("2024-03-01T12", 0.5, 60 / 366),
    ],
)
def test_the_clock_counts_days_of_its_own_year(time: str, day: float, year: float) -> None:
    clock = Clock.at(np.datetime64(time, "ns"))
    assert (clock.day, clock.year) == (np.float32(day), np.float32(year))
    assert {type(clock.day), type(clock.year)} == {np.float32}


def test_steps_add_in_float32_and_never_wrap() -> None:
    clock = Clock.at(np.datetime64("2026-12-31T18", "ns"))
    later = clock
    for _ in range(8):
        later = later.after(1)
    assert later.day == np.float32(2.75)
    assert later.year > 1
    assert type(later.year) is np.float32
    assert clock.after(4).day == np.float32(1.75)


def test_features_are_sine_and_cosine_of_day_then_year() -> None:
    features = Clock(np.float32(0.25), np.float32(0.5)).features()
    torch.testing.assert_close(features, torch.tensor([1.0, 0.0, 0.0, -1.0]), rtol=0, atol=1e-6)
    assert features.dtype == torch.float32


def test_fields_are_longitude_major_oldest_first(
    analyses: xr.Dataset, small_config: ModelConfig
) -> None:
    start = initial_state_from_dataset(analyses, small_config)
    assert start.fields.shape == (2, 29_040, 82)
    channel = CHANNEL_NAMES.index("temperature_850")
    wanted = analyses["temperature"].sel(level=850).isel(time=0, latitude=7, longitude=31)
    assert start.fields[0, 31 * 121 + 7, channel] == wanted.item()
    assert start.clock == Clock.at(analyses["time"].values[-1])


def test_a_model_of_fewer_channels_takes_its_own(
    analyses: xr.Dataset, small_config: ModelConfig
) -> None:
    names = ("geopotential_500", "2m_temperature")
    config = small_config.model_copy(update={"variables": names})
    fields = initial_state_from_dataset(analyses, config).fields
    whole = initial_state_from_dataset(analyses, small_config).fields
    order = [CHANNEL_NAMES.index(name) for name in names]
    assert np.array_equal(fields, whole[:, :, order])


def test_channels_nobody_analyses_are_named(
    analyses: xr.Dataset, small_config: ModelConfig
) -> None:
    config = small_config.model_copy(update={"variables": ("ozone_50",)})
    with pytest.raises(ModelError, match="ozone_50"):
        initial_state_from_dataset(analyses, config)


def test_wrong_times_are_named(analyses: xr.Dataset, small_config: ModelConfig) -> None:
    wide = analyses.assign_coords(time=analyses["time"] - np.array([6, 0], "m8[h]"))
    with pytest.raises(DataError, match=r"has the times 2026-02-28T06:00, .* needs .*T12:00"):
        initial_state_from_dataset(wide, small_config)
    with pytest.raises(DataError, match="needs 2026-02-28T12:00, 2026-02-28T18:00"):
        initial_state_from_dataset(analyses.isel(time=[1]), small_config)


def test_holes_are_named(analyses: xr.Dataset, small_config: ModelConfig) -> None:
    analyses["temperature"][1, 10, 5, 5] = np.nan
    analyses["2m_temperature"][0, 1, 2] = np.inf
    with pytest.raises(DataError, match="2 fields: 2m_temperature at 2026-02-28T12:00, temp"):
        initial_state_from_dataset(analyses, small_config)


def test_departures_from_the_schema_are_listed(
    analyses: xr.Dataset, small_config: ModelConfig
) -> None:
    with pytest.raises(DataError, match="geopotential: missing"):
        initial_state_from_dataset(analyses.drop_vars("geopotential"), small_config)
