from __future__ import annotations

import tracemalloc
from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.variables import channel
from postprocess import points
from postprocess.layout import POINT_CHANNELS
from postprocess.points import write_points
from postprocess.store import ForecastWriter


@pytest.fixture(scope="module")
def forecast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points") / "forecast.zarr"
    with ForecastWriter(path, made_up.spec()) as writer:
        for step in made_up.steps(made_up.spec()):
            writer.write(step)
    return path


def test_the_copy_holds_the_same_values(forecast: Path, tmp_path: Path) -> None:
    write_points(forecast, tmp_path / "points.zarr", made_up.spec())
    with (
        xr.open_zarr(forecast, chunks=None) as maps,
        xr.open_zarr(tmp_path / "points.zarr", chunks=None) as points,
    ):
        assert set(points.data_vars) == set(POINT_CHANNELS)
        for name in POINT_CHANNELS:
            entry = channel(name)
            wanted = maps[entry.variable.name]
            if entry.level_hpa is not None:
                wanted = wanted.sel(level=entry.level_hpa, drop=True)
                assert points[name].attrs["level_hpa"] == entry.level_hpa
            assert np.array_equal(points[name].values, wanted.values)
            assert points[name].encoding["chunks"] == (1, 2, 3, 11, 12)
        assert np.array_equal(points["valid_time"].values, maps["valid_time"].values)


def test_making_it_again_gives_the_same_bytes(forecast: Path, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        write_points(forecast, tmp_path / "points.zarr", made_up.spec())
        contents.append({file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_forecast_is_refused(forecast: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "forecast.zarr"
    copy.symlink_to(forecast)
    shard = forecast / "geopotential/c.0.1.0.7.0.0"
    content = shard.read_bytes()
    changed = {"flip": bytes([content[0] ^ 1]) + content[1:], "cut": content[:100], "remove": None}
    try:
        if changed[damage] is None:
            shard.unlink()
        else:
            shard.write_bytes(changed[damage] or b"")
        with pytest.raises(StoreError, match="geopotential"):
            write_points(copy, tmp_path / "points.zarr", made_up.spec())
    finally:
        shard.write_bytes(content)
    assert not (tmp_path / "points.zarr").exists()


def test_tiles_are_made_one_at_a_time() -> None:
    values = np.zeros((2, 3, 121, 240), np.float32)
    tracemalloc.start()
    count = sum(1 for _ in points._tiles(values))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 220
    assert peak < values.nbytes / 10
