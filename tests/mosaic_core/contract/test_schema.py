"""A schema names every fault of a dataset at once; channels and variables convert exactly."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import DataError
from mosaic_core.contract.schema import ANALYSIS, channels_to_dataset, dataset_to_channels
from mosaic_core.contract.variables import CHANNEL_NAMES

TIMES = np.array(["2026-01-01T00", "2026-01-01T06"], dtype="datetime64[ns]")


def analysis() -> xr.Dataset:
    values = np.arange(2 * 82 * 121 * 240, dtype=np.float32).reshape(2, 82, 121, 240)
    return channels_to_dataset(values, {"time": TIMES})


def test_round_trip_is_exact() -> None:
    values = np.random.default_rng(0).normal(size=(2, 82, 121, 240)).astype(np.float32)
    dataset = channels_to_dataset(values, {"time": TIMES})
    assert ANALYSIS.faults(dataset) == []
    np.testing.assert_array_equal(dataset_to_channels(dataset), values)


def test_each_channel_lands_under_its_own_name_and_level() -> None:
    values = np.zeros((1, 82, 121, 240), dtype=np.float32)
    values[0, CHANNEL_NAMES.index("temperature_850")] = 281.0
    dataset = channels_to_dataset(values, {"time": TIMES[:1]})
    assert float(dataset["temperature"].sel(level=850).mean()) == 281.0
    assert float(abs(dataset["temperature"].drop_sel(level=850)).max()) == 0.0


def test_a_subset_of_channels_keeps_its_levels() -> None:
    values = np.ones((2, 3, 121, 240), dtype=np.float32)
    names = ["geopotential_500", "geopotential_850", "2m_temperature"]
    dataset = channels_to_dataset(values, {"number": np.arange(2)}, channels=names)
    assert dataset["geopotential"].dims == ("number", "level", "latitude", "longitude")
    assert dataset["level"].values.tolist() == [500, 850]


def test_every_fault_is_listed_at_once() -> None:
    broken = analysis().drop_vars("geopotential")
    broken["2m_temperature"] = broken["2m_temperature"].astype("float64")
    broken["temperature"] = broken["temperature"].transpose("level", "time", ...)
    broken["vertical_velocity"].attrs["units"] = "m s-1"
    broken["snow"] = broken["2m_temperature"]
    broken = broken.assign_coords(time=TIMES[::-1], longitude=broken["longitude"] - 180)
    with pytest.raises(DataError) as caught:
        ANALYSIS.validate(broken, where="test.zarr", remedy="ingest it again")
    text = str(caught.value)
    for expected in (
        "test.zarr",
        "geopotential: missing",
        "2m_temperature: dtype is float64",
        "temperature: dims are",
        "attribute units is 'm s-1', expected 'Pa s-1'",
        "snow: not part of this dataset",
        "time: must ascend",
        "longitude: values differ",
        "remedy: ingest it again",
    ):
        assert expected in text


def test_a_missing_coordinate_is_a_fault() -> None:
    assert "latitude: coordinate missing" in ANALYSIS.faults(analysis().drop_vars("latitude"))
