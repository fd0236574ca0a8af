"""Reading is one line with xarray, wherever the stores are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import servers
import tiny
import xarray as xr

from mosaic_core.contract.errors import InputError, StoreError
from postprocess.objects.root import MUTABLE, open_root
from postprocess.publish import publish
from postprocess.read import open_published

FORECAST = f"cycles/{tiny.CYCLE.id}/run-1/forecast.zarr"


@pytest.fixture
def published(address: str, tmp_path: Path) -> str:
    publish(tiny.stage(tmp_path / "staged"), address, cycle=tiny.CYCLE, run_id="run-1")
    return address


def same_as_made(dataset: xr.Dataset) -> bool:
    made = tiny.forecast()
    return np.array_equal(dataset["2m_temperature"].values, made["2m_temperature"].values)


def test_by_its_address(published: str) -> None:
    """A path, s3:// through s3fs, gs:// through gcsfs; endpoints come from the environment."""
    with xr.open_zarr(f"{published}/{FORECAST}", chunks=None) as dataset:
        assert same_as_made(dataset)
        assert dataset["valid_time"].dims == ("init_time", "lead_time")


def test_the_newest_cycle_and_a_named_one(published: str) -> None:
    with open_published(published) as dataset:
        assert same_as_made(dataset)
    with open_published(published, "ensemble.zarr", cycle=tiny.CYCLE) as dataset:
        assert "number" not in dataset.dims


def test_over_plain_http_without_credentials(s3: servers.Server, tmp_path: Path) -> None:
    with s3.environment():
        address = s3.fresh_root()
        publish(tiny.stage(tmp_path / "staged"), address, cycle=tiny.CYCLE, run_id="run-1")
    web = address.replace("s3://", f"{s3.endpoint}/")
    with xr.open_zarr(f"{web}/{FORECAST}", chunks=None) as dataset:
        assert same_as_made(dataset)


def test_damaged_metadata_and_missing_names_are_told(published: str) -> None:
    with pytest.raises(InputError, match="there is no 'wind"):
        open_published(published, "wind.zarr")
    with pytest.raises(InputError, match="is not published"):
        open_published(published, cycle=tiny.CYCLE.shift(6))
    with pytest.raises(InputError, match="nothing is published"):
        open_published(f"{published}/elsewhere")
    root, key = open_root(published), f"{FORECAST}/zarr.json"
    root.write(key, root.read(key).replace(b"hours since 1970", b"hours since 1971"), cache=MUTABLE)
    with pytest.raises(StoreError, match="not what was published"):
        open_published(published)


def test_what_the_loader_of_weatherbench_x_asks_for_is_there(published: str) -> None:
    """PredictionsFromXarray(path=..., rename_dimensions=None) opens with xarray's defaults and
    selects arrays of init_time and lead_time by value; ensembles are along `number`. The package
    itself is on no registry."""
    with xr.open_zarr(f"{published}/{FORECAST}") as dataset:
        init_times = np.array([tiny.CYCLE.init_time])
        lead_times = np.array([6, 12], dtype="timedelta64[h]")
        chunk = dataset[["2m_temperature"]].sel(init_time=init_times, lead_time=lead_times)
        assert dict(chunk.sizes) == {
            "init_time": 1, "number": 2, "lead_time": 2, "latitude": 6, "longitude": 12,
        }  # fmt: skip
        assert chunk["init_time"].dtype.kind == "M"
        assert chunk["lead_time"].dtype.kind == "m"
        whole = dataset.sel(init_time=init_times, lead_time=slice(lead_times[0], None))
        assert whole.sizes["lead_time"] == 2
        assert np.array_equal(chunk["2m_temperature"], whole["2m_temperature"])
