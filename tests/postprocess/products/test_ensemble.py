"""Ensemble statistics against numpy, and the store they grow in."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from postprocess.products.ensemble import EnsembleStatistics

CHANNELS = (
    "2m_temperature",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
    "geopotential_500",
    "geopotential_850",
    "u_component_of_wind_500",
    "v_component_of_wind_500",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
)
INIT = np.datetime64("2026-01-01T00", "ns")


def step(number: int, fields: np.ndarray, members: tuple[int, ...] | None = None) -> ForecastStep:
    numbers = tuple(range(fields.shape[0])) if members is None else members
    lead = np.timedelta64(6 * number, "h").astype("timedelta64[ns]")
    return ForecastStep(INIT, number, lead, numbers, CHANNELS, fields)


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2, 7, len(CHANNELS), 121, 240)) * 10 + 50_000
    values[:, :, 1:3] -= 50_000
    values[:, :, 5:] -= 50_000
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def result(fields, tmp_path_factory):
    product = EnsembleStatistics(tmp_path_factory.mktemp("statistics") / "ensemble.zarr")
    for number, values in enumerate(fields):
        product.update(step(number, values))
    return product.result()


def test_every_statistic_equals_numpy(fields, result):
    members = fields[:, :, CHANNELS.index("geopotential_850")].astype(float)
    expected = {
        "mean": members.mean(1),
        "std": members.std(1, ddof=1),
        "min": members.min(1),
        "max": members.max(1),
    }
    for name, values in expected.items():
        found = result[f"geopotential_{name}"].sel(level=850)
        assert found.dims == ("lead_time", "latitude", "longitude")
        np.testing.assert_allclose(found, values, rtol=4e-7)
    quantiles = np.quantile(members, [0.1, 0.25, 0.5, 0.75, 0.9], axis=1).swapaxes(0, 1)
    found = result.geopotential_quantile.sel(level=850)
    np.testing.assert_allclose(found, quantiles, rtol=2e-7)


def test_wind_speed_is_formed_in_each_member_first(fields, result):
    u, v = (fields[:, :, CHANNELS.index(f"{c}_component_of_wind_500")] for c in "uv")
    expected = np.hypot(u, v).astype(float).mean(1)
    np.testing.assert_allclose(result.wind_speed_mean.sel(level=500), expected, rtol=4e-7)
    assert result["10m_wind_speed_mean"].dims == ("lead_time", "latitude", "longitude")


def test_cf_metadata(result):
    assert result["2m_temperature_std"].attrs["cell_methods"] == "realization: standard_deviation"
    assert result["2m_temperature_std"].attrs["units"] == "K"
    assert result.wind_speed_mean.attrs["standard_name"] == "wind_speed"
    assert result.lead_time.attrs["standard_name"] == "forecast_period"
    assert result.number_of_members.values.tolist() == [7, 7]


def test_the_store_is_there_when_it_is_finished_and_whole(fields, tmp_path):
    path = tmp_path / "ensemble.zarr"
    (tmp_path / ".ensemble.zarr.shards" / "2m_temperature_mean").mkdir(parents=True)
    product = EnsembleStatistics(path, ("mean", "quantile"), (0.5,))
    for number, values in enumerate(fields):
        product.update(step(number, values))
    assert not path.exists()
    assert product.finish({"run_id": "first"}) == path
    assert sorted(tmp_path.iterdir()) == [path]
    opened = xr.open_zarr(path, chunks=None, consolidated=True, decode_timedelta=True)
    assert opened.attrs["run_id"] == "first"
    assert opened.geopotential_quantile.dims == (
        "lead_time", "quantile", "level", "latitude", "longitude",
    )  # fmt: skip
    shard = path / "geopotential_mean" / "c.0.0.0.0"
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match="checksum"):
        opened.geopotential_mean.isel(lead_time=0).load()
    assert np.isfinite(opened.geopotential_mean.isel(lead_time=1)).all()


def test_members_may_leave_on_the_way(fields, tmp_path):
    product = EnsembleStatistics(tmp_path / "ensemble.zarr", ("mean",))
    product.update(step(0, fields[0]))
    product.update(step(1, fields[1][2:], members=(2, 3, 4, 5, 6)))
    with pytest.raises(StoreError, match="new members"):
        product.update(step(2, fields[1]))
    assert product.result().number_of_members.values.tolist() == [7, 5]


def test_one_member_has_a_mean_and_no_deviation(fields, tmp_path):
    product = EnsembleStatistics(tmp_path / "ensemble.zarr", ("mean", "std", "quantile"))
    product.update(step(0, fields[0][:1]))
    found = product.result()
    own = fields[0][0, CHANNELS.index("2m_temperature")]
    np.testing.assert_array_equal(found["2m_temperature_mean"][0], own)
    np.testing.assert_array_equal(found["2m_temperature_quantile"][0, 4], own)
    assert np.isnan(found["2m_temperature_std"]).all()


def test_non_finite_member_blanks_the_point_only(fields, tmp_path):
    broken = fields[0].copy()
    broken[2, 0, 10, 20] = np.nan
    broken[0, 0, 11, 20] = np.inf
    product = EnsembleStatistics(tmp_path / "ensemble.zarr")
    product.update(step(0, broken))
    found = product.result()
    for statistic in ("mean", "std", "min", "max"):
        values = found[f"2m_temperature_{statistic}"].values[0]
        assert np.argwhere(np.isnan(values)).tolist() == [[10, 20], [11, 20]]


def test_bad_input_is_named(fields, tmp_path):
    path = tmp_path / "ensemble.zarr"
    with pytest.raises(InputError, match="unknown statistics"):
        EnsembleStatistics(path, ("mean", "mode"))
    with pytest.raises(InputError, match="quantiles"):
        EnsembleStatistics(path, quantiles=(10.0,))
    with pytest.raises(StoreError, match="no step"):
        EnsembleStatistics(path).result()
    product = EnsembleStatistics(path, ("mean",))
    product.update(step(1, fields[0]))
    with pytest.raises(StoreError, match="follows"):
        product.update(step(1, fields[0]))


def test_rounding_keeps_the_bits_of_the_channel_and_no_more(fields, result, tmp_path):
    product = EnsembleStatistics(tmp_path / "ensemble.zarr", rounding="default")
    for number, values in enumerate(fields):
        product.update(step(number, values))
    rounded = product.result()
    pairs = (
        (
            rounded["geopotential_mean"].sel(level=500),
            result["geopotential_mean"].sel(level=500),
            14,
        ),
        (rounded["10m_wind_speed_std"], result["10m_wind_speed_std"], 7),
        (rounded["geopotential_std"], result["geopotential_std"], 7),
    )
    for found, exact, bits in pairs:
        pattern = np.ascontiguousarray(found.values).view(np.uint32) & ((1 << (23 - bits)) - 1)
        assert not pattern.any()
        np.testing.assert_allclose(found, exact, rtol=2.0 ** -(bits + 1))
        assert not np.array_equal(found, exact)
    assert rounded["10m_wind_speed_std"].attrs["quantization_nsb"] == 7
    assert rounded["geopotential_mean"].attrs["quantization_nsb_by_level"] == [14, 12]
    assert "quantization_nsb_by_level" not in rounded["geopotential_std"].attrs


def test_an_error_while_packing_reaches_the_caller(fields, tmp_path, monkeypatch):
    product = EnsembleStatistics(tmp_path / "ensemble.zarr")

    def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(product._store, "append", full)

    def run():
        product.update(step(0, fields[0]))
        product.finish({})

    with pytest.raises(StoreError, match="the disk is full"):
        run()
    assert not (tmp_path / "ensemble.zarr").exists()
