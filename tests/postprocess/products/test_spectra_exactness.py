"""Spectra against analytic fields, ducc0 (test-only) and NCL/SPHEREPACK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.special import sph_harm_y

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import area_weights
from postprocess.products.spectra import energy
from postprocess.products.spectra.energy import (
    kinetic_energy,
    operator,
    variance,
    zonal_power,
)

DATA = Path(__file__).parents[2] / "data"
NCL_RADIUS_M = 6.37122e6  # the sphere that NCL's vorticity was computed on
COLATITUDE = np.linspace(0.0, np.pi, 121)
LONGITUDE = np.deg2rad(np.arange(240) * 1.5)
PAIRS = [(1, 0), (1, 1), (2, 1), (5, 3), (20, 0), (20, 20), (60, 17), (90, 89), (100, 1),
         (119, 0), (119, 60), (119, 119)]  # fmt: skip


def gradient_of_harmonic(degree: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Real part of the gradient of a harmonic over sqrt(l (l + 1)): (southward, eastward)."""
    theta = np.clip(COLATITUDE, 1e-8, np.pi - 1e-8)[:, None]

    def harmonic(n: int, m: int) -> np.ndarray:
        return sph_harm_y(n, m, theta, LONGITUDE[None, :])

    down = np.sqrt((degree - order) * (degree + order + 1.0))
    slope = order / np.tan(theta) * harmonic(degree, order)
    if order < degree:
        slope = slope + down * np.exp(-1j * LONGITUDE) * harmonic(degree, order + 1)
    turn = 1j * order * harmonic(degree, order) / np.sin(theta)
    norm = np.sqrt(degree * (degree + 1.0))
    return np.real(slope) / norm, np.real(turn) / norm


@pytest.mark.parametrize(("degree", "order"), PAIRS)
@pytest.mark.parametrize("kind", ["rotational", "divergent"])
def test_analytic_field_has_all_its_energy_in_its_degree_and_component(degree, order, kind):
    south, east = gradient_of_harmonic(degree, order)
    if kind == "rotational":
        south, east = -east, south
    op = operator(121, 240, spin=1)
    energies = kinetic_energy(op, east, -south)
    own, other = energies if kind == "rotational" else energies[::-1]
    expected = (1.0 if order == 0 else 0.5) / (8 * np.pi)
    assert own[degree] == pytest.approx(expected, rel=1e-9)
    rest = np.delete(own, degree)
    assert max(rest.max(), other.max()) <= 1e-9 * expected


@pytest.fixture(scope="module")
def band_limited():
    """A random wind with known coefficients, by ducc0: (u, v, E per degree, B per degree)."""
    import ducc0

    lmax = 119
    degree = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    order = np.concatenate([np.full(lmax + 1 - m, m) for m in range(lmax + 1)])
    rng = np.random.default_rng(5)
    alm = rng.standard_normal((2, degree.size)) + 1j * rng.standard_normal((2, degree.size))
    alm[:, order == 0] = alm[:, order == 0].real
    alm[:, degree == 0] = 0
    alm *= np.maximum(degree, 1.0) ** np.array([[-5 / 6], [-1.5]])
    south, east = ducc0.sht.synthesis_2d(
        alm=alm, spin=1, lmax=lmax, geometry="CC", ntheta=121, nphi=240
    )
    weight = np.where(order == 0, 1, 2) / (8 * np.pi)
    spectra = [np.bincount(degree, weight * np.abs(part) ** 2) for part in alm]
    return east, -south, spectra[0], spectra[1]


def test_agrees_with_ducc0_at_every_degree(band_limited):
    u, v, divergent, rotational = band_limited
    found = kinetic_energy(operator(121, 240, spin=1), u, v)
    np.testing.assert_allclose(found[0][1:], rotational[1:], rtol=1e-12)
    np.testing.assert_allclose(found[1][1:], divergent[1:], rtol=1e-12)


def test_single_precision_keeps_six_digits(band_limited):
    u, v, _, rotational = band_limited
    op = operator(121, 240, spin=1, dtype="float32")
    found = kinetic_energy(op, u.astype(np.float32), v.astype(np.float32))
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0][1:], rotational[1:], rtol=3e-6)


def test_sum_over_degrees_is_the_area_mean_kinetic_energy(band_limited):
    u, v, *_ = band_limited
    found = kinetic_energy(operator(121, 240, spin=1), u, v)
    # Exact quadrature of the product would need twice the rings: 1e-3 is the grid's own error.
    area_mean = ((u**2 + v**2).mean(-1) * area_weights(np.linspace(90, -90, 121))).mean() / 2
    assert sum(found).sum() == pytest.approx(area_mean, rel=1e-3)


def test_row_order_is_the_operators(band_limited):
    u, v, *_ = band_limited
    north = kinetic_energy(operator(121, 240, spin=1), u, v)
    south = kinetic_energy(operator(121, 240, spin=1, south_first=True), u[::-1], v[::-1])
    np.testing.assert_allclose(north, south, rtol=1e-12)


def test_many_fields_equal_one_at_a_time(band_limited):
    u, v, *_ = band_limited
    op = operator(121, 240, spin=1)
    factors = np.arange(1.0, 22.0).reshape(3, 7, 1, 1)
    together = kinetic_energy(op, u * factors, v * factors)
    alone = kinetic_energy(op, u, v)
    np.testing.assert_allclose(together[0], alone[0] * factors[..., 0] ** 2, rtol=1e-12)
    assert together[1].shape == (3, 7, 120)


def test_torch_twin_runs_the_same_code(band_limited):
    import torch

    u, v, *_ = band_limited
    op = operator(121, 240, spin=1)
    twin = op.converted(torch.from_numpy)
    tensors = [torch.from_numpy(np.ascontiguousarray(field)) for field in (u, v)]
    for mine, theirs in zip(
        kinetic_energy(op, u, v), kinetic_energy(twin, *tensors, xp=torch), strict=True
    ):
        np.testing.assert_allclose(theirs.numpy(), mine, rtol=1e-12, atol=1e-18)


def test_ncl_vorticity_and_divergence_of_a_real_wind():
    with xr.open_dataset(DATA / "era5_uv850_2025120100_2.5x2.5.nc", engine="netcdf4") as winds:
        u, v = winds.u.values.astype(float), winds.v.values.astype(float)
    with xr.open_dataset(DATA / "era5_vodv850_2025120100_2.5x2.5_ncl.nc", engine="netcdf4") as ncl:
        curl, spread = ncl.vo.values.astype(float), ncl.dv.values.astype(float)
    # The wind file's rows run south to north whatever its latitude says; NCL's north to south.
    rotational, divergent = kinetic_energy(operator(73, 144, spin=1, south_first=True), u, v)
    scalar = operator(73, 144, spin=0)
    degree = np.arange(1, 72)
    scale = NCL_RADIUS_M**2 / (degree * (degree + 1)) / 2
    np.testing.assert_allclose(variance(scalar, curl)[1:] * scale, rotational[1:], rtol=1e-6)
    np.testing.assert_allclose(variance(scalar, spread)[1:] * scale, divergent[1:], rtol=1e-6)


def test_scalar_variance_against_ducc0():
    import ducc0

    rng = np.random.default_rng(2)
    degree = np.concatenate([np.arange(m, 72) for m in range(72)])
    order = np.concatenate([np.full(72 - m, m) for m in range(72)])
    alm = rng.standard_normal((1, degree.size)) + 1j * rng.standard_normal((1, degree.size))
    alm[:, order == 0] = alm[:, order == 0].real
    field = ducc0.sht.synthesis_2d(alm=alm, spin=0, lmax=71, geometry="CC", ntheta=73, nphi=144)
    weight = np.where(order == 0, 1, 2) / (4 * np.pi)
    expected = np.bincount(degree, weight * np.abs(alm[0]) ** 2)
    np.testing.assert_allclose(variance(operator(73, 144, spin=0), field[0]), expected, rtol=1e-12)


def test_zonal_power_of_one_wave():
    latitude = np.array([60.0, 0.0])
    field = 3.0 * np.cos(4 * np.deg2rad(np.arange(0, 360, 2.5)))[None, :] * np.ones((2, 1))
    power = zonal_power(field, latitude)
    circumference = 2 * np.pi * 6_371_229.0 * np.cos(np.deg2rad(latitude))
    np.testing.assert_allclose(power[:, 4], circumference * 9 / 2, rtol=1e-12)
    assert np.delete(power, 4, axis=1).max() < 1e-12 * power.max()


@pytest.mark.parametrize("lmax", [0, 120])
def test_degrees_that_the_grid_does_not_hold_are_refused(lmax):
    with pytest.raises(InputError, match="from 1 to 119"):
        operator(121, 240, spin=1, lmax=lmax)


def test_transposed_fields_are_refused():
    field = np.zeros((240, 121))
    with pytest.raises(InputError, match="latitude before longitude"):
        kinetic_energy(operator(121, 240, spin=1), field, field)


@pytest.mark.parametrize("south_first", [False, True])
def test_refining_the_fields_equals_folded_matrices(band_limited, monkeypatch, south_first):
    u, v, *_ = band_limited
    folded = kinetic_energy(operator(121, 240, spin=1, south_first=south_first), u, v)
    monkeypatch.setattr(energy, "_FOLDED_RINGS", 0)
    operator.cache_clear()
    refined = kinetic_energy(operator(121, 240, spin=1, south_first=south_first), u, v)
    operator.cache_clear()
    np.testing.assert_allclose(refined, folded, rtol=1e-12, atol=1e-18)
