"""Spectra products of a stream: members, ensemble mean, bands, scalars."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, area_weights
from postprocess.products.spectra.energy import kinetic_energy, operator
from postprocess.products.spectra.scalars import ScalarSpectra
from postprocess.products.spectra.stream import SPECTRA, KineticEnergySpectra

INIT = np.datetime64("2026-01-01T00", "ns")
CHANNELS = tuple(
    [f"{part}_component_of_wind_{level}" for level in (200, 500, 850) for part in "uv"]
    + ["10m_u_component_of_wind", "10m_v_component_of_wind", "geopotential_500"]
)


def step(number: int, fields: np.ndarray, numbers=(0, 1, 2)) -> ForecastStep:
    lead = np.timedelta64(6 * number, "h").astype("timedelta64[ns]")
    return ForecastStep(INIT, number, lead, numbers, CHANNELS, fields)


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.standard_normal((2, 3, len(CHANNELS), 121, 240)).astype(np.float32)


@pytest.fixture(scope="module")
def result(fields):
    product = KineticEnergySpectra()
    for number, values in enumerate(fields):
        product.update(step(number, values))
    return product.result()


def test_members_equal_the_operator_on_their_winds(fields, result):
    assert not SPECTRA.faults(result.drop_vars("band_ratio").drop_vars("band"))
    places = [CHANNELS.index(f"{part}_component_of_wind_500") for part in "uv"]
    u, v = (fields[1, :, place].astype(float) for place in places)
    op = operator(121, 240, spin=1, south_first=True)
    rotational, divergent = kinetic_energy(op, u, v)
    np.testing.assert_allclose(result.ke_rot.sel(level=500)[:, 1, 1:], rotational[:, 1:], rtol=1e-5)
    np.testing.assert_allclose(result.ke_div.sel(level=500)[:, 1, 1:], divergent[:, 1:], rtol=1e-5)
    mean = kinetic_energy(op, u.mean(0), v.mean(0))[0]
    found = result.ke_rot_ensemble_mean.sel(level=500)[1, 1:]
    np.testing.assert_allclose(found, mean[1:], rtol=1e-5)


def test_ensemble_mean_is_labelled_and_damped(result):
    assert "damped" in result.ke_rot_ensemble_mean.attrs["comment"]
    assert result.ke_rot_10m_ensemble_mean.sum() < 0.5 * result.ke_rot_10m.mean("number").sum()


def test_band_ratios_are_to_the_analysis(result):
    energy = (result.ke_rot + result.ke_div).sel(level=200, degree=slice(21, 60)).sum("degree")
    expected = energy / energy.isel(lead_time=0).mean()
    found = result.band_ratio.sel(level=200, band="21-60")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_members_that_left_are_nan(fields):
    product = KineticEnergySpectra()
    product.update(step(0, fields[0]))
    product.update(step(1, fields[1][[0, 2]], numbers=(0, 2)))
    found = product.result()
    assert np.isnan(found.ke_rot.sel(number=1).isel(lead_time=1)).all()
    assert np.isnan(found.band_ratio.sel(number=1).isel(lead_time=1)).all()
    assert np.isfinite(found.ke_rot_ensemble_mean).all()


def test_levels_by_choice_and_absent_ones(fields):
    product = KineticEnergySpectra([850], surface=False)
    product.update(step(0, fields[0]))
    assert product.result().level.values.tolist() == [850]
    with pytest.raises(StoreError, match="no channel u_component_of_wind_925"):
        KineticEnergySpectra([925]).update(step(0, fields[0]))
    with pytest.raises(StoreError, match="no step"):
        KineticEnergySpectra().result()


def test_scalar_spectra_sum_to_the_mean_square(fields):
    product = ScalarSpectra(["geopotential_500"])
    smooth = fields[0].copy()
    smooth[:, -1] = 55_000 + 900 * np.sin(np.deg2rad(LATITUDE))[:, None] ** 2
    product.update(step(0, smooth))
    found = product.result()
    plane = smooth[0, -1].astype(float)
    mean_square = ((plane**2).mean(-1) * area_weights(LATITUDE)).mean()
    total = found.variance_geopotential_500.astype(float).sum("degree")
    np.testing.assert_allclose(total, mean_square, rtol=1e-5)
    assert found.zonal_power_geopotential_500.sizes["zonal_wavenumber"] == 121
    with pytest.raises(InputError, match="unknown channel"):
        ScalarSpectra(["geopotential"])
