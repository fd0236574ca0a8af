"""Spherical-harmonic analysis matrices for regular latitude rings that include both poles.

An analysis on n + 1 rings from pole to pole is exact for fields of degree < n. The product of such
a field with a harmonic has twice that degree, so each meridian circle is interpolated to twice as
many rings (Fourier interpolation, exact for band-limited fields) where Clenshaw-Curtis quadrature
is exact. For many fields, interpolation, quadrature and harmonics are folded into one matrix per
zonal wavenumber; for a few fields on a fine grid it is cheaper to refine the fields.

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

    `matrix` is (order, part, degree from first_order on, ring): one part for spin 0; for spin 1
    the derivative (slope), then m / sin(theta) (turn). Rows below the order are zero.
    """

    first_order: int
    matrix: Any


def legendre(first: int, count: int, lmax: int, theta: Array) -> Array:
    """Normalised associated Legendre functions, (count, lmax + 1, theta), orders from `first`.

    Order -1 is minus order 1. Forward recursion in the degree, stable for l >= m; values that
    underflow near the poles are below 1e-300 at every degree up to about 1900.
    """
    orders = np.arange(max(first, 0), first + count)
    cosine, sine = np.cos(theta), np.sin(theta)
    table = np.zeros((orders.size, lmax + 1, theta.size))
    sectoral = _sectoral(int(orders[0]), sine)
    for index, order in enumerate(orders.tolist()):
        if order <= lmax:
            table[index, order] = sectoral
        sectoral = sectoral * sine * np.sqrt((2 * order + 3) / (2 * order + 2))
    for degree in range(int(orders[0]) + 1, lmax + 1):
        active = int(np.searchsorted(orders, degree))
        m2 = orders[:active, None].astype(np.float64) ** 2
        ahead = np.sqrt((4.0 * degree**2 - 1) / (degree**2 - m2))
        table[:active, degree] = ahead * cosine * table[:active, degree - 1]
        if degree > 1:
            behind = np.sqrt(((degree - 1.0) ** 2 - m2) / (4.0 * (degree - 1.0) ** 2 - 1))
            table[:active, degree] -= ahead * behind * table[:active, degree - 2]
    if first < 0:
        minus_one = -table[1:2] if orders.size > 1 else np.zeros_like(table)
        table = np.concatenate([minus_one, table])
    return table


def _sectoral(order: int, sine: Array) -> Array:
    """P of degree = order: a product that underflows gently to zero."""
    start = np.full_like(sine, np.sqrt(1 / (4 * np.pi)))
    for m in range(1, order + 1):
        start = start * sine * np.sqrt((2 * m + 1) / (2 * m))
    return start


def vector_functions(first: int, count: int, lmax: int, theta: Array) -> tuple[Array, Array]:
    """dP/dtheta and m P / sin(theta) over sqrt(l (l + 1)): (count, degree from first on, theta).

    Both come from the neighbouring orders, which keeps them regular at the poles. Degree 0 and
    degrees below the order are zero.
    """
    table = legendre(first - 1, count + 2, lmax, theta)
    start = max(first, 1)
    m = np.arange(first, first + count, dtype=np.float64)[:, None]
    degree = np.arange(start, lmax + 1, dtype=np.float64)[None, :]
    lower, upper = table[:-2], table[2:]
    half = 0.5 * (degree >= m) / np.sqrt(degree * (degree + 1))
    down = half * _root((degree + m) * (degree - m + 1))
    up = half * _root((degree - m) * (degree + m + 1))
    slope = down[..., None] * lower[:, start:] - up[..., None] * upper[:, start:]
    half = half * np.sqrt((2 * degree + 1) / (2 * degree - 1))
    down = half * _root((degree + m) * (degree + m - 1))
    up = half * _root((degree - m) * (degree - m - 1))
    turn = down[..., None] * lower[:, start - 1 : -1] + up[..., None] * upper[:, start - 1 : -1]
    if first == 0:
        nothing = np.zeros((count, 1, theta.size))
        slope, turn = (np.concatenate([nothing, part], axis=1) for part in (slope, turn))
    return slope, turn


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


def refinement(rings: int) -> tuple[Array, Array]:
    """Interpolation and quadrature weights, (2 * rings - 1, rings), odd and even at the poles."""
    intervals = rings - 1
    weights = clenshaw_curtis(2 * intervals)[:, None]
    odd, even = (weights * meridian_interpolation(intervals, even=even) for even in (False, True))
    return odd, even


def is_even(order: Any, spin: int) -> Any:
    """Whether fields of this zonal wavenumber continue evenly across the poles."""
    return (order + spin) % 2 == 0


def analysis_blocks(rings: int, lmax: int, *, spin: int, fold: bool) -> Iterator[Block]:
    """Blocks for `rings` north-to-south rings including both poles, degrees 0..lmax.

    With `fold` the matrices act on the rings themselves, without on the refined and weighted
    ones. Entries carry 2 pi / sqrt(8 pi), times sqrt(2) for m > 0 (the negative orders), so that
    the sum of squares of (matrix @ zonal Fourier coefficients) is half the area mean of the
    squared field.
    """
    north = np.pi * np.arange(rings) / (2 * (rings - 1))
    folded = refinement(rings) if fold else None
    count = max(1, min(_BLOCK_ORDERS, _BLOCK_BYTES // (8 * (lmax + 1) * rings)))
    for first in range(0, lmax + 1, count):
        orders = np.arange(first, min(first + count, lmax + 1))
        if spin == 0:
            parts: tuple[Array, ...] = (legendre(first, orders.size, lmax, north)[:, first:],)
            shifts: tuple[int, ...] = (0,)
        else:
            parts, shifts = vector_functions(first, orders.size, lmax, north), (1, 0)
        scale = np.sqrt(np.where(orders == 0, 1.0, 2.0) * (4 * np.pi**2) / (8 * np.pi))
        ready = [
            _whole(part * scale[:, None, None], orders, shift)
            for part, shift in zip(parts, shifts, strict=True)
        ]
        if folded is not None:
            ready = [_folded(part, orders, folded, spin) for part in ready]
        yield Block(first, np.stack(ready, axis=1))


def _whole(north: Array, orders: NDArray[Any], shift: int) -> Array:
    """Functions of the northern half and the equator, continued south.

    Their sign there is (-1) ** (degree + order + shift): 0 for Legendre functions and for
    m P / sin(theta), 1 for derivatives.
    """
    degree = np.arange(north.shape[1]) + int(orders[0])
    odd = (degree + orders[:, None] + shift) % 2 == 1
    south = north[..., :-1][..., ::-1]
    return np.concatenate([north, np.where(odd[..., None], -south, south)], axis=-1)


def _folded(part: Array, orders: NDArray[Any], folded: tuple[Array, Array], spin: int) -> Array:
    return np.stack(
        [
            part[index] @ folded[int(is_even(order, spin))]
            for index, order in enumerate(orders.tolist())
        ]
    )
