"""Indices come with a climatology and only then; a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.climatology import QUANTILES
from postprocess.products.indices import ClimateIndices
from postprocess.products.requests import ProductRequest
from postprocess.products.suite import ProductOptions, ProductSuite

CHANNELS = ("2m_temperature", "u_component_of_wind_850", "v_component_of_wind_850")
NEW_YEARS_EVE = np.datetime64("2026-12-31T18", "ns")


def step(number: int, temperature: tuple[float, ...] = (271.0, 273.0)) -> ForecastStep:
    """Members of one temperature each, and a wind of 5 m/s."""
    fields = np.empty((len(temperature), 3, 121, 240), np.float32)
    fields[:, 0] = np.array(temperature)[:, None, None]
    fields[:, 1], fields[:, 2] = 3, 4
    lead = np.timedelta64(6 * number, "h").astype("timedelta64[ns]")
    return ForecastStep(
        NEW_YEARS_EVE, number, lead, tuple(range(len(temperature))), CHANNELS, fields
    )


@pytest.fixture
def climatology(tmp_path: Path) -> Path:
    """Evenly 250 to 270 K on the last day of the year, 10 K more on the first; wind 0 to 10 m/s."""
    days, shape = [1, 365], (121, 240)
    base = np.array([10.0, 0.0])[:, None, None] * np.ones((2, *shape))
    temperature = 250 + base[:, None] + 20 * QUANTILES[None, :, None, None]
    wind = 10 * QUANTILES[None, :, None, None] * np.ones((2, 1, *shape))
    field = ("dayofyear", "latitude", "longitude")
    quantiles = ("dayofyear", "quantile", *field[1:])
    path = tmp_path / "climate.nc"
    xr.Dataset(
        {
            "2m_temperature_mean": (field, (260 + base).astype("f4"), {"units": "K"}),
            "2m_temperature_quantile": (quantiles, temperature.astype("f4"), {"units": "K"}),
            "wind_speed_850_mean": (field, np.full((2, *shape), 5, "f4"), {"units": "m s-1"}),
            "wind_speed_850_quantile": (quantiles, wind.astype("f4"), {"units": "m s-1"}),
        },
        {"dayofyear": days, "quantile": QUANTILES, "latitude": LATITUDE, "longitude": LONGITUDE},
        {"climate": "made up, evenly spread"},
    ).to_netcdf(path, engine="netcdf4")
    return path


def test_every_lead_is_compared_with_the_climate_of_its_day(climatology: Path) -> None:
    product = ClimateIndices(climatology)
    product.update(step(0))
    product.update(step(1))  # the first of January
    found = product.result().isel(latitude=60, longitude=7)
    np.testing.assert_allclose(found["2m_temperature_anomaly"], [12, 2], atol=1e-4)
    assert found["2m_temperature_efi"].values[0] == pytest.approx(1, abs=1e-6)
    assert 0 < found["2m_temperature_efi"].values[1] < 1
    # The members' 90 % is 272.8 K; the climate's 99 % is 269.8 K, its 90 % 1.8 K less.
    np.testing.assert_allclose(found["2m_temperature_sot"], [3 / 1.8, -7 / 1.8], rtol=1e-3)
    np.testing.assert_allclose(found["wind_speed_850_anomaly"], 0, atol=1e-5)
    assert found.attrs["climate"] == "made up, evenly spread"
    assert found["valid_time"].values[1] == np.datetime64("2027-01-01T00")


def test_the_suite_writes_them_with_a_climatology_and_only_then(
    climatology: Path, tmp_path: Path
) -> None:
    always = "meteograms.zarr"
    for path, written in ((None, [always]), (str(climatology), ["indices.zarr", always])):
        request = ProductRequest(climatology=path, point_quantities=("2m_temperature",))
        options = ProductOptions(only=("indices", "meteograms"), request=request)
        with ProductSuite(tmp_path / "out", options) as suite:
            suite.update(step(0))
            stores = [each.name for each in suite.finish({}) if each.suffix == ".zarr"]
        assert stores == written
    opened = xr.open_zarr(tmp_path / "out" / "indices.zarr", chunks=None)
    assert opened["2m_temperature_efi"].attrs["units"] == "1"


def test_indices_alone_without_a_climatology_are_refused() -> None:
    with pytest.raises(InputError, match="indices need a climatology"):
        ProductOptions(only=("indices",))


def test_a_file_that_is_no_climatology_is_named(climatology: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.nc"
    with xr.open_dataset(climatology, engine="netcdf4") as dataset:
        dataset.rename({"2m_temperature_mean": "rain_mean"})[["rain_mean"]].to_netcdf(
            other, engine="netcdf4"
        )
    with pytest.raises(DataError, match=r"no quantity of the forecast: rain"):
        ClimateIndices(other).update(step(0))
    with xr.open_dataset(climatology, engine="netcdf4") as dataset:
        dataset.drop_vars("2m_temperature_quantile").to_netcdf(other, mode="w", engine="netcdf4")
    with pytest.raises(DataError, match="2m_temperature_quantile: missing"):
        ClimateIndices(other).update(step(0))
