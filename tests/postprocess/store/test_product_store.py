from __future__ import annotations

from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.product_store import write_product


def product() -> xr.Dataset:
    random = np.random.default_rng(3)
    lead = np.array([0, 6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]")
    init = np.array([made_up.INIT_TIME])
    return xr.Dataset(
        {
            "mean": (
                ("init_time", "lead_time", "quantile", "latitude", "longitude"),
                random.normal(280, 9, (1, 3, 2, 121, 240)).astype(np.float32),
                {"units": "K", "valid_range": np.array([0.0, 1.0])},
            ),
            "spectrum": (("lead_time", "degree"), random.random((3, 120), dtype=np.float32)),
            "count": (("lead_time",), np.array([1, 2, 3], dtype=np.int32)),
            "healthy": (("number",), np.array([True, False])),
        },
        coords={
            "init_time": init,
            "lead_time": lead,
            "valid_time": (("init_time", "lead_time"), init[:, None] + lead[None, :]),
            "quantile": [0.1, 0.9],
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "region": ("number", np.array(["north", "süden"])),
        },
        attrs={"title": "Ensemble statistics"},
    )


def test_reads_back_as_it_was(tmp_path: Path) -> None:
    write_product(tmp_path / "e.zarr", product(), made_up.spec().attributes())
    with xr.open_zarr(tmp_path / "e.zarr") as found:
        xr.testing.assert_equal(found, product())
        assert found.attrs["title"] == "Ensemble statistics"
        assert found.attrs["run_id"] == "test-run"
        assert found["mean"].attrs["valid_range"] == [0.0, 1.0]
        assert found["mean"].encoding["shards"] == (1, 3, 1, 121, 240)
        assert set(found.coords) == set(product().coords)


def test_rounding_is_recorded_and_kept_to(tmp_path: Path) -> None:
    write_product(tmp_path / "e.zarr", product(), {}, keep_bits={"mean": 12})
    with xr.open_zarr(tmp_path / "e.zarr") as found:
        assert abs(found["mean"] - product()["mean"]).max() <= 0.032
        assert found["mean"].attrs["quantization_nsb"] == 12
        assert "quantization_info" in found.coords


def test_same_dataset_same_bytes_and_an_older_store_is_replaced(tmp_path: Path) -> None:
    for name in ("a.zarr", "b.zarr", "b.zarr"):
        write_product(tmp_path / name, product(), {})
    a, b = (
        {str(f.relative_to(tmp_path / name)): f.read_bytes()
         for f in (tmp_path / name).rglob("*") if f.is_file()}
        for name in ("a.zarr", "b.zarr")
    )  # fmt: skip
    assert a == b
    assert {item.name for item in tmp_path.iterdir()} == {"a.zarr", "b.zarr"}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("z", np.array([1 + 2j, 0, 0]), "complex"),
        ("t", np.array(["2026-01-01T00:30"] * 3, dtype="datetime64[ns]"), "whole hours"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, name: str, values: np.ndarray, message: str
) -> None:
    bad = product().assign({name: ("lead_time", values)})
    with pytest.raises(StoreError, match=message):
        write_product(tmp_path / "e.zarr", bad, {})
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    changed = product().assign_coords(
        latitude=("latitude", product()["latitude"].values, {"units": "radians"})
    )
    with pytest.raises(StoreError, match=r"reviewed structure of 'ensemble'[^z]*latitude/units"):
        write_product(tmp_path / "e.zarr", changed, {}, template="ensemble")
    assert list(tmp_path.iterdir()) == []
