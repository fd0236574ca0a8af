"""A store that grows by leads: the values come back, every object is guarded, holes are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.layout import arrays_of
from postprocess.products.growing_store import GrowingStore, MapArray
from postprocess.products.stream import forecast_coordinates

INIT = np.datetime64("2026-11-23T00", "ns")
LEADS = 3
VALUES = np.random.default_rng(1).normal(280, 9, (LEADS, 2, 121, 240)).astype(np.float32)
MAP = {"latitude": 121, "longitude": 240}
MAPS = {
    "t_mean": MapArray({"level": 2, **MAP}, {"units": "K"}),
    "t_quantile": MapArray({"quantile": 2, **MAP}, {"units": "K"}),
}


def rest() -> xr.Dataset:
    leads = [np.timedelta64(6 * lead, "h").astype("timedelta64[ns]") for lead in range(LEADS)]
    places = {"latitude": LATITUDE, "longitude": LONGITUDE, "level": [500, 850]}
    coords = {**forecast_coordinates(INIT, leads), **places, "quantile": [0.1, 0.9]}
    counts = np.array([24, 24, 23], dtype=np.int32)
    return xr.Dataset({"members": ("lead_time", counts)}, coords=coords, attrs={"title": "own"})


def grown(path: Path, leads: int = LEADS) -> GrowingStore:
    store = GrowingStore(path)
    for values in VALUES[:leads]:
        store.append("t_mean", values)
        for index in range(2):
            store.append("t_quantile", values[index], index)
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = grown(tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    store.finish(MAPS, rest(), {"title": "of the run", "run_id": "a"})
    return tmp_path / "s.zarr"


def test_the_leads_come_back_joined(path):
    with xr.open_zarr(path, decode_timedelta=True, chunks=None) as found:
        np.testing.assert_array_equal(found.t_mean, VALUES)
        np.testing.assert_array_equal(found.t_quantile, VALUES)
        assert found.t_quantile.dims == ("lead_time", "quantile", "latitude", "longitude")
        assert found.t_mean.encoding["chunks"] == (1, 1, 121, 240)
        assert found.t_mean.encoding["shards"] == (LEADS, 2, 121, 240)
        assert set(found.coords) == set(rest().coords)
        assert found.attrs["title"] == "own"
        assert found.attrs["run_id"] == "a"
    assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]


def test_every_object_has_a_checksum(path):
    arrays = arrays_of(json.loads((path / "zarr.json").read_bytes()))
    objects = sorted(path.glob("*/c*"))
    assert len(objects) == 1 + 2 + len(arrays) - 2
    for stored in objects:
        good = stored.read_bytes()
        middle = len(good) // 2
        stored.write_bytes(good[:middle] + bytes([good[middle] ^ 8]) + good[middle + 1 :])
        with (
            pytest.raises(Exception, match=r"(?i)checksum|crc"),
            xr.open_zarr(path, chunks=None) as found,
        ):
            found.load()
        stored.write_bytes(good)


def test_an_older_store_is_replaced_and_leftovers_vanish(path):
    leftover = path.with_name(".s.zarr.shards") / "t_mean"
    leftover.mkdir(parents=True)
    (leftover / "c.0.0.0.0").write_bytes(b"half a lead")
    grown(path).finish(MAPS, rest(), {"run_id": "b"})
    with xr.open_zarr(path, chunks=None) as found:
        assert found.attrs["run_id"] == "b"
        np.testing.assert_array_equal(found.t_mean, VALUES)
    assert [entry.name for entry in path.parent.iterdir()] == ["s.zarr"]


def test_missing_leads_are_refused(tmp_path):
    with pytest.raises(StoreError, match="has 2 of 3 leads"):
        grown(tmp_path / "s.zarr", leads=2).finish(MAPS, rest(), {})
    assert not (tmp_path / "s.zarr").exists()
