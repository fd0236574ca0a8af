"""Spherical-harmonic synthesis on regular global latitude-longitude grids.

Coefficient arrays have shape (..., m, n), complex, triangular: entries with n < m are ignored.
The Legendre functions are normalised so that half the integral of P_nm**2 over sin(latitude) is 1;
a real field is f = F_0 + 2 Re sum_{m>0} F_m exp(i m longitude), F_m = sum_l c_nm P_nm.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ingest.synthetic.constants import EARTH_ROTATION
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import EARTH_RADIUS_M

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex = NDArray[np.complexfloating]


# Winds divide by cos(latitude); the pole rows are evaluated a kilometre away from the pole.
_POLEMOST_LATITUDE = 89.99


def _epsilon(degree: int) -> Float64:
    """Recursion coefficients sqrt((n^2 - m^2) / (4 n^2 - 1)), shape (m, n), zero where n <= m."""
    m = np.arange(degree + 1, dtype=np.float64)[:, None]
    n = np.arange(degree + 1, dtype=np.float64)[None, :]
    return np.sqrt(np.clip(n**2 - m**2, 0.0, None) / np.abs(4.0 * n**2 - 1.0))


def legendre(latitude: Float64, degree: int) -> list[Float32]:
    """Normalised Legendre functions: entry m has shape (n = m..degree, latitude)."""
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    epsilon = _epsilon(degree)
    table = [np.empty((degree + 1 - m, latitude.size), np.float32) for m in range(degree + 1)]
    older = np.zeros((degree + 1, latitude.size))
    newer = older.copy()
    newer[0] = 1.0
    table[0][0] = 1.0
    for n in range(1, degree + 1):
        here = (sine * newer[:n] - epsilon[:n, n - 1, None] * older[:n]) / epsilon[:n, n, None]
        sectoral = np.sqrt((2 * n + 1) / (2 * n)) * cosine * newer[n - 1]
        older[:n] = newer[:n]
        newer[:n], newer[n] = here, sectoral
        for m in range(n + 1):
            table[m][n - m] = newer[m]
    return table


def along_longitude(coefficients: Complex) -> Complex:
    """Coefficients of (1/a) d/dlongitude."""
    m = np.arange(coefficients.shape[-2])[:, None]
    return coefficients * (1j * m / EARTH_RADIUS_M)


def along_latitude(coefficients: Complex) -> Complex:
    """Coefficients of (cos(latitude)/a) d/dlatitude; the highest degree is dropped first."""
    degree = coefficients.shape[-1] - 1
    epsilon = _epsilon(degree)
    n = np.arange(degree + 1)
    result = np.zeros_like(coefficients)
    result[..., :-2] += (n[:-2] + 2) * epsilon[:, 1:-1] * coefficients[..., 1:-1]
    result[..., 1:] -= (n[1:] - 1) * epsilon[:, 1:] * coefficients[..., :-1]
    return result / EARTH_RADIUS_M


def times_sine(coefficients: Complex) -> Complex:
    """Coefficients of the field times sin(latitude); the highest degree loses a little."""
    epsilon = _epsilon(coefficients.shape[-1] - 1)
    result = np.zeros_like(coefficients)
    result[..., 1:] += epsilon[:, 1:] * coefficients[..., :-1]
    result[..., :-1] += epsilon[:, 1:] * coefficients[..., 1:]
    return result


def linear_balance(coefficients: Complex) -> Complex:
    """Coefficients of the geopotential that balances a streamfunction (m2/s).

    Solves laplacian(geopotential) = div(f grad(streamfunction)) with f = 2 Omega sin(latitude).
    """
    degree = coefficients.shape[-1] - 1
    epsilon, n = _epsilon(degree), np.arange(degree + 1)
    result = np.zeros_like(coefficients)
    result[..., 1:] += epsilon[:, 1:] * ((n[1:] - 1) / n[1:]) * coefficients[..., :-1]
    result[..., :-1] += epsilon[:, 1:] * ((n[:-1] + 2) / (n[:-1] + 1)) * coefficients[..., 1:]
    return result * (2.0 * EARTH_ROTATION) * (n > 0)


def inverse_laplacian(coefficients: Complex) -> Complex:
    """Coefficients of the field with zero mean whose Laplacian on the sphere is given."""
    n = np.arange(coefficients.shape[-1])
    return coefficients * (-(EARTH_RADIUS_M**2) / np.maximum(n * (n + 1), 1)) * (n > 0)


class SphereGrid:
    """A regular global grid: any latitudes, equidistant longitudes round the full circle.

    Raises:
        InputError: the longitudes are not equidistant eastward over 360 degrees.
    """

    def __init__(self, latitude: Float64, longitude: Float64, degree: int) -> None:
        self.latitude = np.asarray(latitude, np.float64)
        self.longitude = np.asarray(longitude, np.float64)
        self.degree = degree
        spacing = np.diff(self.longitude) % 360.0
        if not np.allclose(spacing, 360.0 / self.longitude.size, atol=1e-6):
            raise InputError(
                "longitudes are not equidistant eastward over the full circle",
                where=f"{self.longitude.size} longitudes from {self.longitude[0]}",
                remedy="give n longitudes 360/n degrees apart",
            )
        clipped = np.clip(self.latitude, -_POLEMOST_LATITUDE, _POLEMOST_LATITUDE)
        self._cosine = np.cos(np.radians(clipped)).astype(np.float32)
        self._legendre = legendre(clipped, degree)

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return self.latitude.size, self.longitude.size

    @cached_property
    def coriolis(self) -> Float32:
        """Coriolis parameter, shape (latitude, 1), s-1."""
        sine = np.sin(np.radians(self.latitude))[:, None]
        return (2.0 * EARTH_ROTATION * sine).astype(np.float32)

    def scalar(self, coefficients: Complex) -> Float32:
        """The fields (pattern, latitude, longitude) of coefficients (pattern, m, n)."""
        return self._to_longitudes(self._rows(coefficients))

    def vector(self, coefficients: Complex) -> Float32:
        """Like `scalar`, divided by cos(latitude): for gradients, see `along_latitude`."""
        return self._to_longitudes(self._rows(coefficients) / self._cosine[:, None])

    def _rows(self, coefficients: Complex) -> Complex:
        """Zonal Fourier coefficients (pattern, latitude, m), cut at the grid's Nyquist number."""
        waves = min(self.degree, self.longitude.size // 2) + 1
        count = coefficients.shape[0]
        rows = np.empty((count, self.latitude.size, waves), np.complex64)
        for m in range(waves):
            column = coefficients[:, m, m:]
            stacked = np.concatenate([column.real, column.imag]).astype(np.float32)
            product = stacked @ self._legendre[m]
            rows[:, :, m].real = product[:count]
            rows[:, :, m].imag = product[count:]
        return rows

    def _to_longitudes(self, rows: Complex) -> Float32:
        m = np.arange(rows.shape[-1])
        phase = np.exp(1j * m * np.radians(self.longitude[0])).astype(np.complex64)
        fields = np.empty((rows.shape[0], *self.shape), np.float32)
        padded = np.zeros((self.latitude.size, self.longitude.size // 2 + 1), np.complex64)
        for field, row in zip(fields, rows, strict=True):
            np.multiply(row, phase, out=padded[:, : m.size])
            field[:] = fft.irfft(padded, n=self.longitude.size, axis=-1, norm="forward")
        return fields


class GaussGrid:
    """Gauss-Legendre grid on which fields given as values are turned into coefficients."""

    def __init__(self, degree: int) -> None:
        self.degree = degree
        sine, self._weights = np.polynomial.legendre.leggauss(degree * 3 // 2 + 1)
        self.latitude: Float64 = np.asarray(np.degrees(np.arcsin(sine)), dtype=np.float64)
        count = 3 * degree + 3
        self.longitude: Float64 = np.arange(count, dtype=np.float64) * (360.0 / count)
        self._legendre = legendre(self.latitude, degree)

    def project(self, field: NDArray[np.floating]) -> NDArray[np.complex128]:
        """Coefficients (m, n) of one field (latitude, longitude) on this grid."""
        rows = fft.rfft(field, axis=-1, norm="forward")
        result = np.zeros((self.degree + 1, self.degree + 1), np.complex128)
        for m in range(self.degree + 1):
            result[m, m:] = self._legendre[m] @ (0.5 * self._weights * rows[:, m])
        return result

    def project_wave(self, profile: NDArray[np.floating], m: int) -> Float64:
        """Coefficients (n,) of profile(latitude) * exp(i m longitude); zero for n < m."""
        result = np.zeros(self.degree + 1)
        result[m:] = self._legendre[m] @ (0.5 * self._weights * profile)
        return result
