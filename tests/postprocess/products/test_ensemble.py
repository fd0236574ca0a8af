"""Ensemble statistics against numpy, and the store they grow in."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from postprocess.products.ensemble import EnsembleStatistics, mean_and_deviation

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
    values = rng.standard_normal((2, 7, len(CHANNELS), 240, 121)) * 10 + 50_000
    values[:, :, 1:3] -= 50_000
    values[:, :, 5:] -= 50_000
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def result(fields):
    product = EnsembleStatistics()
    for number, values in enumerate(fields):
        product.update(step(number, values))
    return product.result()


def test_every_statistic_equals_numpy(fields, result):
    members = fields[:, :, CHANNELS.index("geopotential_850")].swapaxes(-1, -2).astype(float)
    expected = {
        "mean": members.mean(1),
        "std": members.std(1, ddof=1),
        "min": members.min(1),
        "max": members.max(1),
    }
    for name, values in expected.items():
        found = result[f"geopotential_{name}"].sel(level=850)
        assert found.dims == ("lead_time", "latitude", "longitude")
        np.testing.assert_allclose(found, values, rtol=2e-7)
    quantiles = np.quantile(members, [0.1, 0.25, 0.5, 0.75, 0.9], axis=1).swapaxes(0, 1)
    found = result.geopotential_quantile.sel(level=850)
    np.testing.assert_allclose(found, quantiles, rtol=2e-7)


def test_wind_speed_is_formed_in_each_member_first(fields, result):
    u, v = (fields[:, :, CHANNELS.index(f"{c}_component_of_wind_500")] for c in "uv")
    expected = np.hypot(u, v).astype(float).mean(1).swapaxes(-1, -2)
    np.testing.assert_allclose(result.wind_speed_mean.sel(level=500), expected, rtol=2e-7)
    assert result["10m_wind_speed_mean"].dims == ("lead_time", "latitude", "longitude")


def test_cf_metadata(result):
    assert result["2m_temperature_std"].attrs["cell_methods"] == "realization: standard_deviation"
    assert result["2m_temperature_std"].attrs["units"] == "K"
    assert result.wind_speed_mean.attrs["standard_name"] == "wind_speed"
    assert result.lead_time.attrs["standard_name"] == "forecast_period"
    assert result.number_of_members.values.tolist() == [7, 7]


def test_store_holds_the_same_bits_as_memory(fields, result, tmp_path):
    product = EnsembleStatistics(path=tmp_path / "ensemble.zarr")
    for number, values in enumerate(fields):
        product.update(step(number, values))
    stored = product.result().load()
    for name in result.variables:
        np.testing.assert_array_equal(stored[name].values, result[name].values, err_msg=name)
    assert stored.attrs == result.attrs


def test_members_may_leave_on_the_way(fields):
    product = EnsembleStatistics(("mean",))
    product.update(step(0, fields[0]))
    product.update(step(1, fields[1][2:], members=(2, 3, 4, 5, 6)))
    assert product.result().number_of_members.values.tolist() == [7, 5]
    with pytest.raises(StoreError, match="new members"):
        product.update(step(2, fields[1]))


def test_one_member_has_a_mean_and_no_deviation():
    mean, deviation = mean_and_deviation(np.ones((1, 3), np.float32))
    assert mean.tolist() == [1, 1, 1]
    assert np.isnan(deviation).all()


def test_non_finite_member_blanks_the_point_only(fields):
    broken = fields[0].copy()
    broken[2, 0, 10, 20] = np.nan
    product = EnsembleStatistics()
    product.update(step(0, broken))
    found = product.result()
    for statistic in ("mean", "std", "min", "max"):
        values = found[f"2m_temperature_{statistic}"].values[0]
        assert np.isnan(values[20, 10])
        assert np.isnan(values).sum() == 1


def test_bad_input_is_named(fields):
    with pytest.raises(InputError, match="unknown statistics"):
        EnsembleStatistics(("mean", "mode"))
    with pytest.raises(InputError, match="quantiles"):
        EnsembleStatistics(quantiles=(10.0,))
    with pytest.raises(StoreError, match="no step"):
        EnsembleStatistics().result()
    product = EnsembleStatistics(("mean",))
    product.update(step(1, fields[0]))
    with pytest.raises(StoreError, match="follows"):
        product.update(step(1, fields[0]))


def test_rounding_keeps_the_bits_of_the_channel_and_no_more(fields, result):
    product = EnsembleStatistics(rounding="default")
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
    )
    for found, exact, bits in pairs:
        pattern = np.ascontiguousarray(found.values).view(np.uint32) & ((1 << (23 - bits)) - 1)
        assert not pattern.any()
        np.testing.assert_allclose(found, exact, rtol=2.0 ** -(bits + 1))
        assert not np.array_equal(found, exact)
