from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.decode import read_messages
from ingest.regrid import ConservativeRegridder, latitude_weights, longitude_weights
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights

DATA = Path(__file__).parents[1] / "data"
NATIVE_LATITUDE = np.linspace(90.0, -90.0, 721)
NATIVE_LONGITUDE = 180.0 + 0.25 * np.arange(1440)


@pytest.fixture(scope="module")
def native() -> ConservativeRegridder:
    return ConservativeRegridder(NATIVE_LATITUDE, NATIVE_LONGITUDE)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "golden_regrid_1p5deg_lonlat.npz") as stored:
        return {name: stored[name].T for name in stored.files if stored[name].ndim == 2}


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(5.0, 2.0, (721, 1440))


def area_mean(field: np.ndarray, latitude: np.ndarray) -> float:
    return float((field.mean(axis=1) * area_weights(latitude)).mean())


def test_weights_of_each_target_sum_to_one_and_are_not_negative(
    native: ConservativeRegridder,
) -> None:
    for weights in (native.latitude_weights, native.longitude_weights):
        assert abs(weights.sum(axis=1) - 1.0).max() < 1e-14
        assert weights.data.min() > 0


def test_pole_row_is_a_cap_of_four_source_rows(native: ConservativeRegridder) -> None:
    """Hand-worked: the cap of 0.75 degrees, shares of its area by differences of sines."""
    edges = np.sin(np.deg2rad([90.0, 89.875, 89.625, 89.375, 89.25]))
    shares = -np.diff(edges) / (edges[0] - edges[-1])
    row = native.latitude_weights.toarray()[-1]
    np.testing.assert_allclose(row[:4], shares, rtol=1e-10)
    assert not row[4:].any()


def test_longitude_row_is_centred_and_wraps(native: ConservativeRegridder) -> None:
    """The cell of 0 E has seven source columns around 0 E, which lies in mid-row from 180 E."""
    row = native.longitude_weights.toarray()[0]
    expected = np.zeros(1440)
    expected[[717, 718, 719, 720, 721, 722, 723]] = [1 / 12, *[1 / 6] * 5, 1 / 12]
    np.testing.assert_allclose(row, expected, atol=1e-14)


def test_area_mean_is_conserved(native: ConservativeRegridder, noise: np.ndarray) -> None:
    before, after = area_mean(noise, NATIVE_LATITUDE), area_mean(native(noise), LATITUDE)
    assert abs(after / before - 1.0) < 1e-12
    after = area_mean(native(noise.astype(np.float32)), LATITUDE)
    assert abs(after / before - 1.0) < 1e-6


def test_a_constant_stays_itself(native: ConservativeRegridder) -> None:
    result = native(np.full((721, 1440), 101_325.0, np.float32))
    assert result.dtype == np.float32
    assert (result == np.float32(101_325.0)).all()


@pytest.mark.parametrize("origin", [0.0, 180.0, -180.0, 90.25])
@pytest.mark.parametrize("south_first", [False, True])
def test_origin_and_direction_of_the_source_do_not_matter(
    origin: float, south_first: bool, native: ConservativeRegridder, noise: np.ndarray
) -> None:
    roll = round((origin - 180.0) / 0.25) % 1440
    turned = np.roll(noise, -roll, axis=1)
    latitude = NATIVE_LATITUDE
    if south_first:
        turned, latitude = turned[::-1], latitude[::-1]
    other = ConservativeRegridder(latitude, origin + 0.25 * np.arange(1440))
    np.testing.assert_allclose(other(turned), native(noise), rtol=0, atol=1e-12)


def test_a_missing_block_stays_where_it_is(native: ConservativeRegridder) -> None:
    field = np.full((721, 1440), 7.0)
    field[300:330, 0:60] = np.nan
    result = native(field)
    assert np.isnan(result).any()
    np.testing.assert_allclose(result[~np.isnan(result)], 7.0, rtol=0, atol=1e-12)
    touched = native(np.isnan(field).astype(float))
    np.testing.assert_array_equal(np.isnan(result), touched > 1 - 1e-12)


def test_a_cell_with_a_missing_part_is_the_mean_of_the_rest(native: ConservativeRegridder) -> None:
    field = np.full((721, 1440), 1.0)
    field[:, 720] = np.nan
    field[:, 721] = 3.0
    at_zero_east = native(field)[60, 0]
    assert at_zero_east == pytest.approx((4 / 6 + 3 / 6) / (5 / 6))


def test_agrees_with_cdo_on_a_real_message(
    native: ConservativeRegridder, golden: dict[str, np.ndarray]
) -> None:
    field = next(read_messages(DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2"))
    result = ConservativeRegridder(field.latitude, field.longitude)(field.values)
    # The stored result is float32: half a unit in the last place at 300 K.
    np.testing.assert_array_less(abs(result - golden["t2m_cdo"]), 1.6e-5)
    np.testing.assert_array_less(abs(result - golden["t2m_wb2"]), 1e-3)


def test_agrees_with_cdo_on_era5(golden: dict[str, np.ndarray]) -> None:
    path = DATA / "era5_msl_2025120100_0p25.nc"
    with xr.open_dataset(path, engine="scipy") as dataset:
        axes = dataset["latitude"].values, dataset["longitude"].values
        result = ConservativeRegridder(*axes)(dataset["msl"].values.astype(np.float64))
    np.testing.assert_array_less(abs(result - golden["msl_era5_cdo"]), 0.0040)
    np.testing.assert_array_less(abs(result - golden["msl_era5_wb2"]), 0.1)


def test_leading_dimensions_pass_through(native: ConservativeRegridder, noise: np.ndarray) -> None:
    stack = np.stack([noise, noise + 1.0])[:, None]
    result = native(stack)
    assert result.shape == (2, 1, 121, 240)
    np.testing.assert_array_equal(result[0, 0], native(noise))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 40), st.integers(3, 60), st.integers(3, 30), st.integers(3, 40))
def test_any_pair_of_global_grids_conserves(rows: int, columns: int, to_rows: int, to: int) -> None:
    latitude, longitude = np.linspace(-90, 90, rows), 360.0 / columns * np.arange(columns) - 13.0
    target = np.linspace(90, -90, to_rows), 360.0 / to * np.arange(to)
    field = np.random.default_rng(rows * columns).normal(size=(rows, columns))
    result = ConservativeRegridder(latitude, longitude, *target)(field)
    assert area_mean(result, target[0]) == pytest.approx(area_mean(field, latitude), abs=1e-12)


@pytest.mark.parametrize(
    "longitude",
    [np.arange(0, 180.0), np.array([0.0, 1.0, 5.0]), np.array([0.0, 120.0, 60.0])],
)
def test_longitudes_that_are_no_full_circle_are_refused(longitude: np.ndarray) -> None:
    with pytest.raises(InputError, match="longitude"):
        longitude_weights(longitude, LONGITUDE)


def test_latitudes_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="monotonic"):
        latitude_weights(np.array([0.0, 10.0, 5.0]), LATITUDE)


def test_a_field_of_another_shape_is_refused(native: ConservativeRegridder) -> None:
    with pytest.raises(InputError, match=r"expected .*721, 1440"):
        native(np.zeros((1440, 721)))
