"""Spherical harmonics against integrals and derivatives known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.synthetic.constants import EARTH_ROTATION
from ingest.synthetic.harmonics import (
    GaussGrid,
    SphereGrid,
    along_latitude,
    along_longitude,
    inverse_laplacian,
    legendre,
    linear_balance,
    times_sine,
)
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import EARTH_RADIUS_M, LATITUDE, LONGITUDE

DEGREE = 40


@pytest.fixture(scope="module")
def gauss() -> GaussGrid:
    return GaussGrid(DEGREE)


@pytest.fixture(scope="module")
def grid() -> SphereGrid:
    return SphereGrid(LATITUDE, LONGITUDE, DEGREE)


def random_coefficients() -> np.ndarray:
    rng = np.random.default_rng(1)
    draw = rng.standard_normal((2, DEGREE + 1, DEGREE + 1))
    coefficients = np.triu(draw[0] + 1j * draw[1])
    coefficients[0] = coefficients[0].real
    return coefficients


def test_low_functions_are_the_textbook_ones():
    latitude = np.array([-50.0, 10.0, 80.0])
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    table = legendre(latitude, 2)
    np.testing.assert_allclose(table[0][1], np.sqrt(3) * sine, rtol=1e-6)
    np.testing.assert_allclose(table[0][2], np.sqrt(5) * (1.5 * sine**2 - 0.5), rtol=1e-6)
    np.testing.assert_allclose(table[1][0], np.sqrt(1.5) * cosine, rtol=1e-6)


def test_functions_are_orthonormal():
    sine, weights = np.polynomial.legendre.leggauss(60)
    table = legendre(np.degrees(np.arcsin(sine)), DEGREE)
    for m in (0, 1, 7, DEGREE):
        product = 0.5 * (table[m] * weights) @ table[m].T
        np.testing.assert_allclose(product, np.eye(len(product)), atol=2e-6)


def test_synthesis_and_projection_are_inverse(gauss: GaussGrid):
    coefficients = random_coefficients()
    field = SphereGrid(gauss.latitude, gauss.longitude, DEGREE).scalar(coefficients[None])[0]
    np.testing.assert_allclose(gauss.project(field), coefficients, atol=2e-5)


def test_gradient_of_a_known_field(gauss: GaussGrid, grid: SphereGrid):
    phi, lam = np.radians(gauss.latitude)[:, None], np.radians(gauss.longitude)[None, :]
    coefficients = gauss.project(np.cos(phi) ** 2 * np.sin(phi) * np.cos(2 * lam))[None]
    phi, lam = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    east = -2 * np.cos(phi) * np.sin(phi) * np.sin(2 * lam) / EARTH_RADIUS_M
    slope = np.cos(phi) ** 3 - 2 * np.cos(phi) * np.sin(phi) ** 2
    north = slope * np.cos(2 * lam) / EARTH_RADIUS_M
    inner = slice(1, -1)
    ours_east = grid.vector(along_longitude(coefficients))[0]
    ours_north = grid.vector(along_latitude(coefficients))[0]
    np.testing.assert_allclose(ours_east[inner], east[inner], atol=1e-12)
    np.testing.assert_allclose(ours_north[inner], north[inner], atol=1e-12)


def test_winds_at_the_poles_are_finite_and_uniform_in_speed(grid: SphereGrid):
    coefficients = np.zeros((1, DEGREE + 1, DEGREE + 1), complex)
    coefficients[0, 1, 1] = 1e7
    east = grid.vector(-along_latitude(coefficients))[0]
    north = grid.vector(along_longitude(coefficients))[0]
    speed = np.hypot(east, north)[[0, -1]]
    np.testing.assert_allclose(speed, speed.mean(), rtol=1e-4)
    assert speed.mean() > 1.0


def test_inverse_laplacian_undoes_the_laplacian(grid: SphereGrid):
    coefficients = random_coefficients()[None]
    n = np.arange(DEGREE + 1)
    laplacian = coefficients * -(n * (n + 1)) / EARTH_RADIUS_M**2
    restored = inverse_laplacian(laplacian)
    np.testing.assert_allclose(restored[..., 1:], coefficients[..., 1:], rtol=1e-9)
    assert restored[0, 0, 0] == 0


def test_balance_of_solid_rotation(gauss: GaussGrid, grid: SphereGrid):
    """For u = U cos(lat), f u = -(1/a) dz/dlat gives z = Omega U a cos(lat)^2 + a constant."""
    speed = 20.0
    sine = np.sin(np.radians(gauss.latitude))[:, None] * np.ones(gauss.longitude.size)
    psi = gauss.project(-speed * EARTH_RADIUS_M * sine)[None]
    height = grid.scalar(linear_balance(psi))[0, :, 0]
    cosine = np.cos(np.radians(LATITUDE)) ** 2
    expected = EARTH_ROTATION * speed * EARTH_RADIUS_M * (cosine - 2.0 / 3.0)
    np.testing.assert_allclose(height, expected, rtol=1e-4, atol=1.0)
    np.testing.assert_allclose(grid.vector(-along_latitude(psi))[0, 60], speed, rtol=1e-5)


def test_times_sine(gauss: GaussGrid):
    coefficients = random_coefficients()
    coefficients[:, -1] = 0.0
    grid = SphereGrid(gauss.latitude, gauss.longitude, DEGREE)
    field = grid.scalar(coefficients[None])[0]
    product = grid.scalar(times_sine(coefficients)[None])[0]
    expected = field * np.sin(np.radians(gauss.latitude))[:, None]
    np.testing.assert_allclose(product, expected, atol=1e-4)


def test_longitude_origin_only_rolls(grid: SphereGrid):
    coefficients = random_coefficients()[None]
    turned = SphereGrid(LATITUDE, LONGITUDE + 180.0, DEGREE).scalar(coefficients)
    np.testing.assert_allclose(np.roll(turned, 120, axis=-1), grid.scalar(coefficients), atol=1e-3)


@pytest.mark.parametrize("longitude", [np.arange(0.0, 180.0, 1.5), np.array([0.0, 90.0, 200.0])])
def test_longitudes_must_go_round(longitude: np.ndarray):
    with pytest.raises(InputError, match="equidistant"):
        SphereGrid(LATITUDE, longitude, DEGREE)
