"""Spherical-harmonic analysis matrices for regular latitude rings that include both poles.

An analysis on n + 1 rings from pole to pole is exact for fields of degree < n. The product of such
a field with a harmonic has twice that degree, so each meridian circle is interpolated to twice as
many rings (Fourier interpolation, exact for band-limited fields) where Clenshaw-Curtis quadrature
is exact; interpolation, quadrature and harmonics are folded into one matrix per zonal wavenumber.

Conventions: orthonormal harmonics Y = P(theta) exp(i m phi) without the Condon-Shortley sign,
colatitude theta = 0 at the north pole, m >= 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK_BYTES = 48 << 20  # of Legendre functions held at a time while a block is built
_BLOCK_ORDERS = 10  # more orders in a block share more empty rows below the diagonal


@dataclass(frozen=True)
class Block:
    """Analysis matrices of zonal wavenumbers `first_order` ... `first_order + len(matrix) - 1`.

    `matrix` is (order, degree from first_order on, ring) for spin 0; for spin 1 the last axis
    holds the rings twice: the derivative part, then the m / sin(theta) part. Rows below the
    order (degree < m) are zero.
    """

    first_order: int
    matrix: Any


def legendre(first: int, count: int, lmax: int, theta: Array) -> Array:
    """Normalised associated Legendre functions, (count, lmax + 1, theta), orders from `first`.

    Order -1 is minus order 1. Forward recursion in the degree, stable for l >= m; values that
    underflow near the poles are below 1e-300 at every degree up to about 1900.
    """
    cosine, sine = np.cos(theta), np.sin(theta)
    orders = np.arange(first, first + count)
    table = np.zeros((count, lmax + 1, theta.size))
    for index, order in enumerate(orders.tolist()):
        if abs(order) <= lmax:
            table[index, abs(order)] = _sectoral(order, sine)
    squared = orders.astype(np.float64) ** 2
    for degree in range(1, lmax + 1):
        active = np.abs(orders) < degree
        m2 = squared[active, None]
        ahead = np.sqrt((4.0 * degree**2 - 1) / (degree**2 - m2))
        behind = np.sqrt(((degree - 1.0) ** 2 - m2) / (4.0 * (degree - 1.0) ** 2 - 1))
        older = table[active, degree - 2] if degree > 1 else 0.0
        table[active, degree] = ahead * (cosine * table[active, degree - 1] - behind * older)
    return table


def _sectoral(order: int, sine: Array) -> Array:
    """P of degree = |order|: a product that underflows gently to zero."""
    start = np.full_like(sine, np.sqrt(1 / (4 * np.pi)))
    for m in range(1, abs(order) + 1):
        start = start * sine * np.sqrt((2 * m + 1) / (2 * m))
    return -start if order < 0 else start


def vector_functions(first: int, count: int, lmax: int, theta: Array) -> tuple[Array, Array]:
    """dP/dtheta and m P / sin(theta), both over sqrt(l (l + 1)): (count, lmax + 1, theta) each.

    Both come from the neighbouring orders, which keeps them regular at the poles. Degree 0 is 0.
    """
    table = legendre(first - 1, count + 2, lmax, theta)
    lower, upper = table[:-2], table[2:]
    m = np.arange(first, first + count, dtype=np.float64)[:, None]
    degree = np.arange(lmax + 1, dtype=np.float64)[None, :]
    norm = np.sqrt(np.maximum(degree * (degree + 1), 1.0))
    down = _root((degree + m) * (degree - m + 1)) / norm
    up = _root((degree - m) * (degree + m + 1)) / norm
    slope = 0.5 * (down[..., None] * lower - up[..., None] * upper)
    ratio = np.sqrt((2 * degree + 1) / np.maximum(2 * degree - 1, 1.0)) / norm
    down = ratio * _root((degree + m) * (degree + m - 1))
    up = ratio * _root((degree - m) * (degree - m - 1))
    turn = np.zeros_like(slope)
    turn[:, 1:] = 0.5 * (down[:, 1:, None] * lower[:, :-1] + up[:, 1:, None] * upper[:, :-1])
    valid = (degree >= m) & (degree > 0)
    return slope * valid[..., None], turn * valid[..., None]


def _root(values: Array) -> Array:
    return np.sqrt(np.maximum(values, 0.0))


def clenshaw_curtis(intervals: int) -> Array:
    """Weights (intervals + 1,) of the integral over cos(theta) on equal angles; even count."""
    theta = np.pi * np.arange(intervals + 1) / intervals
    k = np.arange(1, intervals // 2 + 1)
    share = np.where(k == intervals // 2, 1.0, 2.0) / (4.0 * k**2 - 1)
    weights = (2.0 / intervals) * (1 - np.cos(2 * np.outer(theta, k)) @ share)
    weights[[0, -1]] /= 2
    return weights


def meridian_interpolation(intervals: int, *, even: bool) -> Array:
    """(2 * intervals + 1, intervals + 1): rings to twice as many, for one parity at the poles.

    Functions continued evenly across the poles are cosine series, the others are sine series
    (and zero at the poles, whatever the pole rows say).
    """
    coarse = np.pi * np.arange(intervals + 1) / intervals
    fine = np.pi * np.arange(2 * intervals + 1) / (2 * intervals)
    k = np.arange(intervals + 1)
    if not even:
        return (2.0 / intervals) * np.sin(np.outer(fine, k)) @ np.sin(np.outer(k, coarse))
    ends = np.where((k == 0) | (k == intervals), 0.5, 1.0)
    series = np.cos(np.outer(fine, k)) * ends
    return (2.0 / intervals) * series @ np.cos(np.outer(k, coarse)) * ends


def analysis_blocks(rings: int, lmax: int, mmax: int, *, spin: int) -> Iterator[Block]:
    """Blocks for `rings` north-to-south rings including both poles, degrees 0..lmax.

    Matrix entries carry 2 pi / (8 pi), doubled for m > 0 (the negative orders), so that the sum
    of squares of (matrix @ zonal Fourier coefficients) is half the area mean of the squared field.
    """
    intervals = rings - 1
    theta = np.pi * np.arange(2 * intervals + 1) / (2 * intervals)
    weights = clenshaw_curtis(2 * intervals)[:, None]
    folded = {
        even: weights * meridian_interpolation(intervals, even=even) for even in (True, False)
    }
    count = max(1, min(_BLOCK_ORDERS, _BLOCK_BYTES // (8 * (lmax + 1) * theta.size)))
    for first in range(0, mmax + 1, count):
        orders = np.arange(first, min(first + count, mmax + 1))
        if spin == 0:
            parts: tuple[Array, ...] = (legendre(first, orders.size, lmax, theta),)
        else:
            parts = vector_functions(first, orders.size, lmax, theta)
        yield Block(first, _fold(parts, orders, folded, spin))


def _fold(
    parts: tuple[Array, ...], orders: NDArray[Any], folded: dict[bool, Array], spin: int
) -> Array:
    first = int(orders[0])
    scale = np.where(orders == 0, 1.0, 2.0) * (4 * np.pi**2) / (8 * np.pi)
    return np.stack(
        [
            np.concatenate(
                [part[index, first:] @ folded[(order + spin) % 2 == 0] for part in parts], axis=-1
            )
            * np.sqrt(scale[index])
            for index, order in enumerate(orders)
        ]
    )
