"""Spectra of fields on a sphere: kinetic energy per degree, variance per degree, zonal power.

One code for numpy arrays and torch tensors: the caller passes the array module (`xp`), which this
module never imports itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import EARTH_RADIUS_M
from postprocess.products.spectra.harmonics import Block, analysis_blocks, is_even, refinement

_CACHE_FIELDS = 8  # wind fields at a time whose Fourier coefficients stay in a 2 MiB cache
_FOLDED_RINGS = 361  # up to half a degree the folded matrices are kept (375 MB there)


@dataclass(frozen=True)
class Operator:
    """Analysis matrices for one grid; `spin` 1 for winds, 0 for scalars; degrees 0..lmax.

    `refine` is None where the matrices act on the rings of the grid; otherwise the pair (odd,
    even) of matrices that refine the rings first.
    """

    spin: int
    rings: int
    longitudes: int
    lmax: int
    blocks: Iterable[Block]
    refine: tuple[Any, Any] | None = None

    def converted(self, convert: Callable[[Any], Any]) -> Operator:
        """The same operator with every matrix passed through `convert`.

        For example `lambda matrix: torch.from_numpy(matrix).to("cuda", torch.float32)`.
        """
        blocks = tuple(Block(block.first_order, convert(block.matrix)) for block in self.blocks)
        refine = None if self.refine is None else (convert(self.refine[0]), convert(self.refine[1]))
        return Operator(self.spin, self.rings, self.longitudes, self.lmax, blocks, refine)


@dataclass(frozen=True)
class _MadeAnew:
    """Blocks of a fine grid, computed again for every pass: kept, they would take gigabytes."""

    rings: int
    lmax: int
    spin: int

    def __iter__(self) -> Iterator[Block]:
        return analysis_blocks(self.rings, self.lmax, spin=self.spin, fold=False)


@lru_cache(maxsize=8)
def operator(
    rings: int,
    longitudes: int,
    *,
    spin: int,
    lmax: int | None = None,
    south_first: bool = False,
    dtype: str = "float64",
) -> Operator:
    """The operator of a grid of `rings` (both poles included) by `longitudes` (eastward).

    Exact up to degree rings - 2, the default `lmax` where the longitudes resolve it. InputError
    when more is asked for than the grid holds. Finer grids than half a degree are float64 only.
    """
    highest = min(rings - 2, (longitudes - 1) // 2)
    degree = highest if lmax is None else lmax
    if not 1 <= degree <= highest:
        raise InputError(
            f"degree {degree} cannot be computed on {rings} x {longitudes} points",
            remedy=f"ask for a degree from 1 to {highest}",
        )
    if rings > _FOLDED_RINGS:
        odd, even = refinement(rings)
        order = slice(None, None, -1 if south_first else 1)
        refine = odd[:, order] / longitudes, even[:, order] / longitudes
        return Operator(spin, rings, longitudes, degree, _MadeAnew(rings, degree, spin), refine)
    blocks = tuple(
        _finished(block, longitudes, south_first, dtype)
        for block in analysis_blocks(rings, degree, spin=spin, fold=True)
    )
    return Operator(spin, rings, longitudes, degree, blocks)


def _finished(block: Block, longitudes: int, south_first: bool, dtype: str) -> Block:
    """Matrices of Fourier sums (not means) in the order of the rows."""
    matrix = block.matrix[..., ::-1] if south_first else block.matrix
    return Block(block.first_order, np.ascontiguousarray(matrix / longitudes, dtype=dtype))


def kinetic_energy(
    op: Operator, u: Any, v: Any, *, xp: Any = np, batch: int = _CACHE_FIELDS
) -> tuple[Any, Any]:
    """Rotational and divergent kinetic energy per degree, m2 s-2, (..., lmax + 1) each.

    `u`, `v` are (..., latitude, longitude) in m s-1 in the operator's row order. KE_l is
    1/(8 pi) sum_m (|B_lm|^2 + |E_lm|^2) with orthonormal vector harmonics, the form of Lambert
    (1984, Atmosphere-Ocean 22) without a radius; its sum over the degrees is the area mean of
    (u^2 + v^2) / 2. `batch` fields are transformed at a time.
    """
    east, north = _flat(u, op), _flat(v, op)
    parts = [
        _vector_energy(op, east[start : start + batch], north[start : start + batch], xp)
        for start in range(0, east.shape[0], batch)
    ]
    shape = (*u.shape[:-2], op.lmax + 1)
    rotational = xp.concatenate([part[0] for part in parts], 0).reshape(shape)
    divergent = xp.concatenate([part[1] for part in parts], 0).reshape(shape)
    return rotational, divergent


def variance(op: Operator, field: Any, *, xp: Any = np, batch: int = _CACHE_FIELDS) -> Any:
    """Variance per degree of a scalar field (..., latitude, longitude), (..., lmax + 1).

    The sum over the degrees is the area mean of the squared field; degree 0 is the squared mean.
    """
    flat = _flat(field, op)
    parts = [
        _scalar_power(op, flat[start : start + batch], xp)
        for start in range(0, flat.shape[0], batch)
    ]
    return xp.concatenate(parts, 0).reshape(*field.shape[:-2], op.lmax + 1)


def zonal_power(field: Any, latitude: Any, *, xp: Any = np) -> Any:
    """Power per zonal wavenumber along each latitude circle, as WeatherBench 2 defines it.

    `field` (..., latitude, longitude), `latitude` (n,) in degrees; returns (..., latitude,
    longitude // 2 + 1) in units of the field squared times m: C |F_0|^2 and 2 C |F_k|^2 with the
    circumference C of the circle.
    """
    count = field.shape[-1]
    coefficients = _rfft(field, xp) / count
    circumference = 2 * np.pi * EARTH_RADIUS_M * np.cos(np.deg2rad(latitude))
    power = coefficients.real**2 + coefficients.imag**2
    power[..., 1:] = 2 * power[..., 1:]
    return power * circumference[..., None]


def _flat(field: Any, op: Operator) -> Any:
    if tuple(field.shape[-2:]) != (op.rings, op.longitudes):
        raise InputError(
            f"the field has {tuple(field.shape[-2:])} points, "
            f"the operator is for {(op.rings, op.longitudes)}",
            remedy="build the operator for this grid, latitude before longitude",
        )
    return field.reshape(-1, op.rings, op.longitudes)


def _vector_energy(op: Operator, u: Any, v: Any, xp: Any) -> tuple[Any, Any]:
    """(rotational, divergent), each (fields, lmax + 1).

    With the southward wind s = -v, the eastward wind e = u, slope S and turn T of the harmonics:
    E = S s - i T e and B = i T s + S e.
    """
    wind = xp.stack([-1 * v, u], 0).reshape(-1, op.rings, op.longitudes)
    columns = _columns(wind, op, xp)
    rotational: list[Any] = []
    divergent: list[Any] = []
    for block, product in _products(op, columns, xp):
        parts = product.reshape(*product.shape[:3], 2, u.shape[0], 2)
        (s_slope, e_slope), (s_turn, e_turn) = (
            [(part[..., i, :, 0], part[..., i, :, 1]) for i in (0, 1)]
            for part in (parts[:, 0], parts[:, 1])
        )
        spread = (s_slope[0] + e_turn[1]) ** 2 + (s_slope[1] - e_turn[0]) ** 2
        curl = (e_slope[0] - s_turn[1]) ** 2 + (e_slope[1] + s_turn[0]) ** 2
        _accumulate(divergent, spread.sum(0), block.first_order)
        _accumulate(rotational, curl.sum(0), block.first_order)
    return rotational[0].T, divergent[0].T


def _scalar_power(op: Operator, field: Any, xp: Any) -> Any:
    power: list[Any] = []
    for block, product in _products(op, _columns(field, op, xp), xp):
        squared = (product[:, 0] ** 2).sum(0)
        parts = squared.reshape(squared.shape[0], field.shape[0], 2)
        _accumulate(power, 2 * (parts[..., 0] + parts[..., 1]), block.first_order)
    return power[0].T


def _columns(field: Any, op: Operator, xp: Any) -> Any:
    """Fourier sums of (fields, ring, longitude) as reals: (order, ring, fields x re/im).

    A view with the rings next to each other in memory: what BLAS takes without a copy.
    """
    sums = _rfft(field, xp)[..., : op.lmax + 1].swapaxes(1, 2)
    parts = xp.stack([sums.real, sums.imag], 1)
    return xp.moveaxis(parts.reshape(-1, *parts.shape[2:]), 0, 2)


def _rfft(field: Any, xp: Any) -> Any:
    """Along the last axis; scipy's is five times faster than numpy's in single precision."""
    return scipy.fft.rfft(field) if xp is np else xp.fft.rfft(field)


def _products(op: Operator, columns: Any, xp: Any) -> Iterator[tuple[Block, Any]]:
    """Each block with its matrix @ columns: (order, part, degree, columns)."""
    if op.refine is not None:
        finer = [
            op.refine[int(is_even(order, op.spin))] @ columns[order] for order in range(op.lmax + 1)
        ]
        columns = xp.stack(finer, 0)
    for block in op.blocks:
        count, parts, degrees, rings = block.matrix.shape
        rows = block.matrix.reshape(count, parts * degrees, rings)
        product = rows @ columns[block.first_order : block.first_order + count]
        yield block, product.reshape(count, parts, degrees, -1)


def _accumulate(total: list[Any], addition: Any, first_degree: int) -> None:
    """Add to total[0] from `first_degree` on; the first addition starts it."""
    if not total:
        total.append(addition)
    else:
        total[0][first_degree:] += addition
