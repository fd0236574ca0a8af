"""Indices against a climate on cases whose answer is known; a wrong artefact is named."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from scipy import integrate

from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.climatology import (
    QUANTILES,
    Climate,
    anomaly_correlation,
    climatology_sha256,
    extreme_forecast_index,
    read_climate,
    shift_of_tails,
)

SHAPE = (121, 240)


@pytest.fixture(scope="module")
def climate() -> Climate:
    """Evenly spread between 0 and 100 everywhere."""
    levels = 100 * QUANTILES[:, None, None] * np.ones(SHAPE)
    return Climate(np.full(SHAPE, 50.0), levels)


def members(*values: float) -> np.ndarray:
    return np.array(values)[:, None, None] * np.ones(SHAPE)


def test_efi_is_one_beyond_the_climate_and_minus_one_below(climate):
    np.testing.assert_allclose(extreme_forecast_index(members(150, 160), climate), 1, atol=1e-12)
    below = extreme_forecast_index(members(-5, -6), climate)
    np.testing.assert_allclose(below, -1, atol=1e-12)


def test_efi_of_the_climate_itself_is_zero(climate):
    found = extreme_forecast_index(members(*np.linspace(0.5, 99.5, 100)), climate)
    np.testing.assert_allclose(found, 0, atol=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_efi_is_unknown_without_a_climate_or_a_member(climate, value):
    holed = Climate(climate.mean, climate.quantiles.copy())
    holed.quantiles[40, 2, 3] = value
    holed.quantiles[:, 5, 6] = value
    given = members(30, 70)
    given[1, 7, 8] = value
    found = extreme_forecast_index(given, holed)
    assert np.argwhere(np.isnan(found)).tolist() == [[2, 3], [5, 6], [7, 8]]
    expected = extreme_forecast_index(members(30, 70), climate)
    np.testing.assert_array_equal(found[10:], expected[10:])


def test_efi_equals_the_integral(climate):
    values = (70.0, 80.0, 95.0)
    found = extreme_forecast_index(members(*values), climate)[0, 0]
    shares = [np.mean([v <= 100 * p for v in values]) for p in QUANTILES]

    def integrand(p: float) -> float:
        return (p - np.interp(p, QUANTILES, shares)) / np.sqrt(p * (1 - p))

    expected = sum(integrate.quad(integrand, a, b)[0] for a, b in pairwise(QUANTILES))
    assert found == pytest.approx(2 / np.pi * expected, abs=1e-6)


def test_shift_of_tails(climate):
    found = shift_of_tails(members(108.0, 108.0), climate)
    np.testing.assert_allclose(found, (108 - 99) / (99 - 90))
    flat = Climate(climate.mean, np.full((101, *SHAPE), 3.0))
    assert np.isnan(shift_of_tails(members(5.0, 6.0), flat)).all()


def test_anomaly_correlation(climate):
    rng = np.random.default_rng(0)
    truth = 50 + rng.standard_normal(SHAPE)
    assert anomaly_correlation(truth, truth, climate) == pytest.approx(1)
    assert anomaly_correlation(100 - truth, truth, climate) == pytest.approx(-1)
    other = 50 + rng.standard_normal((3, *SHAPE))
    assert np.abs(anomaly_correlation(other, truth, climate)).max() < 0.05


def artefact() -> xr.Dataset:
    mean = np.stack([np.full(SHAPE, 10.0), np.full(SHAPE, 20.0)])
    levels = 100 * QUANTILES[None, :, None, None] * np.ones((2, 1, *SHAPE))
    units = {"units": "K"}
    return xr.Dataset(
        {
            "t_mean": (("dayofyear", "latitude", "longitude"), mean, units),
            "t_quantile": (("dayofyear", "quantile", "latitude", "longitude"), levels, units),
        },
        coords={"dayofyear": [10, 200], "quantile": QUANTILES, "latitude": LATITUDE,
                "longitude": LONGITUDE},
        attrs={"climate": "test, 2001-2020"},
    )  # fmt: skip


def test_nearest_day_counts_across_new_year(tmp_path):
    artefact().to_netcdf(tmp_path / "climate.nc", engine="netcdf4")
    assert read_climate(tmp_path / "climate.nc", "t", "K", 360).mean[0, 0] == 10
    assert read_climate(tmp_path / "climate.nc", "t", "K", 150).mean[0, 0] == 20


def test_a_wrong_artefact_lists_its_faults(tmp_path):
    wrong = artefact().drop_vars("t_mean").isel(quantile=slice(0, 50))
    wrong.attrs = {}
    wrong.to_netcdf(tmp_path / "wrong.nc", engine="netcdf4")
    with pytest.raises(DataError) as caught:
        read_climate(tmp_path / "wrong.nc", "t", "K", 1)
    for fault in ("t_mean: missing", "quantile: not the 101", "climate: attribute missing"):
        assert fault in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_climate(tmp_path / "absent.nc", "t", "K", 1)


def test_another_unit_is_refused(tmp_path):
    wrong = artefact()
    wrong["t_mean"].attrs["units"] = "degC"
    del wrong["t_quantile"].attrs["units"]
    wrong.to_netcdf(tmp_path / "wrong.nc", engine="netcdf4")
    with pytest.raises(DataError) as caught:
        read_climate(tmp_path / "wrong.nc", "t", "K", 1)
    assert "t_mean: units 'degC', expected 'K'" in str(caught.value)
    assert "t_quantile: units None, expected 'K'" in str(caught.value)


def test_quantiles_that_decrease_are_refused_and_gaps_are_not(tmp_path):
    holed = artefact()
    holed["t_quantile"][:, :, 4, 5] = np.nan
    holed.to_netcdf(tmp_path / "holed.nc", engine="netcdf4")
    assert np.isnan(read_climate(tmp_path / "holed.nc", "t", "K", 200).quantiles[:, 4, 5]).all()
    holed["t_quantile"][1] = holed["t_quantile"].values[1, ::-1]
    holed.to_netcdf(tmp_path / "wrong.nc", engine="netcdf4")
    with pytest.raises(DataError, match=r"t_quantile: decreases .* at 29039 points, day 200"):
        read_climate(tmp_path / "wrong.nc", "t", "K", 200)


def test_the_digest_is_of_the_content(tmp_path):
    small = artefact().isel(latitude=slice(2), longitude=slice(2))
    for name, suffix in (("one", "nc"), ("two", "nc"), ("one", "zarr"), ("two", "zarr")):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "nc":
            path.write_bytes(b"CDF the same")
        else:
            small.to_zarr(path, consolidated=False)
        assert climatology_sha256(path) == climatology_sha256(tmp_path / f"one.{suffix}")
    before = climatology_sha256(tmp_path / "two.zarr")
    changed = small["t_mean"].copy()
    changed[0, 0, 0] += 1
    changed.to_dataset().to_zarr(tmp_path / "two.zarr", mode="a", consolidated=False)
    assert climatology_sha256(tmp_path / "two.zarr") != before
    (tmp_path / "two.nc").write_bytes(b"CDF changed")
    assert climatology_sha256(tmp_path / "two.nc") != climatology_sha256(tmp_path / "one.nc")
    with pytest.raises(InputError, match="no such file or store"):
        climatology_sha256(tmp_path / "absent.nc")
