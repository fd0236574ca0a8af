"""Spectra of winds in other people's files: any order, any grid with poles, wrong labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.grids import open_any
from postprocess.products.spectra.files import wind_spectra

DATA = Path(__file__).parents[2] / "data"
MISLABELLED = DATA / "era5_uv850_2025120100_2.5x2.5.nc"


@pytest.fixture
def real() -> xr.Dataset:
    """A real wind at 850 hPa with the latitude its rows really have."""
    with xr.open_dataset(MISLABELLED, engine="netcdf4") as winds:
        return winds.load().assign_coords(latitude=winds.latitude.values[::-1])


def energies(dataset: xr.Dataset, **options) -> np.ndarray:
    found = wind_spectra(dataset, "u", "v", **options)
    return np.stack([found.ke_rot.values, found.ke_div.values])


def test_every_order_of_rows_dims_and_columns_gives_the_same(real):
    expected = energies(real)
    westward = real.isel(longitude=slice(None, None, -1))
    for twin in (
        real.isel(latitude=slice(None, None, -1)),
        real.transpose("longitude", "latitude"),
        westward,
        real.roll(longitude=37, roll_coords=True).assign_coords(
            longitude=real.longitude.values - 37 * 2.5
        ),
        real.rename(latitude="lat", longitude="lon"),
        real.rename(latitude="y", longitude="x"),
    ):
        np.testing.assert_allclose(energies(twin), expected, rtol=1e-9)


def test_other_dimensions_and_their_coordinates_are_kept(real):
    times = np.array(["2025-12-01", "2025-12-02"], dtype="datetime64[ns]")
    stacked = xr.concat([real, 2 * real], xr.DataArray(times, dims="time", name="time"))
    found = wind_spectra(stacked.transpose("longitude", "time", "latitude"), "u", "v")
    assert found.ke_rot.dims == ("time", "degree")
    np.testing.assert_array_equal(found.time.values, times)
    np.testing.assert_allclose(found.ke_rot[1], 4 * found.ke_rot[0], rtol=1e-9)


def test_components_in_different_dim_order(real):
    mixed = xr.Dataset({"u": real.u, "v": real.v.transpose("longitude", "latitude")})
    np.testing.assert_allclose(energies(mixed), energies(real), rtol=1e-12)


def test_repeated_meridian_is_dropped(real):
    closing = real.isel(longitude=[0]).assign_coords(longitude=[360.0])
    closed = xr.concat([real, closing], "longitude")
    np.testing.assert_allclose(energies(closed), energies(real), rtol=1e-12)


def test_guard_catches_the_mislabelled_file():
    with open_any(MISLABELLED) as winds, pytest.raises(DataError, match="run against") as caught:
        wind_spectra(winds, "u", "v", where="winds.nc")
    assert "--row-order" in caught.value.remedy


def test_stated_row_order_overrules_the_labels(real):
    with open_any(MISLABELLED) as winds:
        found = energies(winds, row_order="south-north")
    np.testing.assert_allclose(found, energies(real), rtol=1e-12)


def test_guard_lets_a_single_divergent_pattern_through():
    latitude, longitude = np.linspace(90, -90, 73), np.arange(144) * 2.5
    v = np.cos(np.deg2rad(latitude))[:, None] * np.ones((1, 144))
    dims = ("latitude", "longitude")
    winds = xr.Dataset(
        {"u": (dims, 0 * v), "v": (dims, v)}, coords={"latitude": latitude, "longitude": longitude}
    )
    found = wind_spectra(winds, "u", "v")
    assert found.ke_div.values[1] == pytest.approx(1 / 3, rel=1e-9)
    assert found.ke_rot.values.max() < 1e-12


def test_bad_input_is_named(real):
    with pytest.raises(InputError, match="no variable 'w'"):
        wind_spectra(real, "w", "v")
    with pytest.raises(DataError, match="without rows at the poles"):
        wind_spectra(real.isel(latitude=slice(1, -1)), "u", "v")
    with pytest.raises(DataError, match="not one whole circle"):
        wind_spectra(real.isel(longitude=slice(0, 100)), "u", "v")
    broken = real.copy(deep=True)
    broken.u[3, 4] = np.nan
    with pytest.raises(DataError, match="1 missing"):
        wind_spectra(broken, "u", "v")
    knots = real.assign(u=real.u.assign_attrs(units="knots"))
    with pytest.raises(DataError, match="not in m s-1"):
        wind_spectra(knots, "u", "v")
    with pytest.raises(DataError, match="no coordinate values"):
        wind_spectra(real.drop_vars("latitude"), "u", "v")
    stretched = real.latitude.values + np.where(np.arange(73) == 30, 0.5, 0.0)
    with pytest.raises(DataError, match="equally spaced"):
        wind_spectra(real.assign_coords(latitude=stretched), "u", "v")


def test_open_any_refuses_what_it_cannot_read(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no data")
    with pytest.raises(InputError, match="neither NetCDF nor Zarr"):
        open_any(text)
    with pytest.raises(InputError, match="no such file"):
        open_any(tmp_path / "absent.nc")
    truncated = tmp_path / "cut.nc"
    truncated.write_bytes(MISLABELLED.read_bytes()[:2000])
    with pytest.raises((InputError, DataError)):
        wind_spectra(open_any(truncated), "u", "v")


def test_zarr_store_opens(real, tmp_path):
    real.to_zarr(tmp_path / "winds.zarr", consolidated=False)
    with open_any(tmp_path / "winds.zarr") as winds:
        np.testing.assert_allclose(energies(winds), energies(real), rtol=1e-12)
