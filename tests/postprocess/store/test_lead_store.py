from __future__ import annotations

import json
from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.layout import arrays_of
from postprocess.lead_store import LeadStore


def lead(index: int) -> xr.Dataset:
    random = np.random.default_rng(index)
    hours = np.array([6 * index], dtype="timedelta64[h]").astype("timedelta64[ns]")
    init = np.array([made_up.INIT_TIME])
    return xr.Dataset(
        {
            "t_mean": (
                ("lead_time", "level", "latitude", "longitude"),
                random.normal(280, 9, (1, 2, 121, 240)).astype(np.float32),
                {"units": "K"},
            ),
            "t_quantile": (
                ("lead_time", "quantile", "latitude", "longitude"),
                random.normal(280, 9, (1, 2, 121, 240)).astype(np.float32),
            ),
            "members": ("lead_time", np.array([24 - index], dtype=np.int32)),
        },
        coords={
            "init_time": init,
            "lead_time": hours,
            "valid_time": (("init_time", "lead_time"), init[:, None] + hours[None, :]),
            "quantile": [0.1, 0.9],
            "level": [500, 850],
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
        },
        attrs={"title": "Statistics"},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    series = LeadStore(tmp_path / "s.zarr")
    for index in range(3):
        series.append(lead(index))
        assert not (tmp_path / "s.zarr/zarr.json").exists()
    series.finish()
    return tmp_path / "s.zarr"


def test_the_leads_come_back_joined(path: Path) -> None:
    wanted = xr.concat(
        [lead(0), lead(1), lead(2)], "lead_time", data_vars="minimal", coords="minimal",
        compat="override", join="exact",
    )  # fmt: skip
    with xr.open_zarr(path, decode_timedelta=True) as found:
        xr.testing.assert_identical(found.load(), wanted)
        assert set(found.coords) == set(wanted.coords)
        assert found["t_quantile"].encoding["chunks"] == (1, 1, 121, 240)


def test_every_object_has_a_checksum(path: Path) -> None:
    arrays = arrays_of(json.loads((path / "zarr.json").read_bytes()))
    assert all(array["codecs"][-1] == {"name": "crc32c"} for array in arrays.values())
    chunks = sorted(path.glob("*/c*"))
    for chunk in chunks:
        good = chunk.read_bytes()
        middle = len(good) // 2
        chunk.write_bytes(good[:middle] + bytes([good[middle] ^ 8]) + good[middle + 1 :])
        with (
            pytest.raises(Exception, match=r"(?i)checksum|crc"),
            xr.open_zarr(path, chunks=None) as found,
        ):
            found.load()
        chunk.write_bytes(good)
    assert len(chunks) == 3 + 6 + 3 + 5


def test_other_variables_and_no_lead_at_all_are_refused(tmp_path: Path) -> None:
    series = LeadStore(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="no lead"):
        series.finish()
    series.append(lead(0))
    with pytest.raises(StoreError, match="'members'"):
        series.append(lead(1).drop_vars("members"))
