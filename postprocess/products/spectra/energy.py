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
        refine = np.ascontiguousarray(odd[:, order]), np.ascontiguousarray(even[:, order])
        return Operator(spin, rings, longitudes, degree, _MadeAnew(rings, degree, spin), refine)
    blocks = tuple(
        _finished(block, rings, south_first, dtype)
        for block in analysis_blocks(rings, degree, spin=spin, fold=True)
    )
    return Operator(spin, rings, longitudes, degree, blocks)


def _finished(block: Block, rings: int, south_first: bool, dtype: str) -> Block:
    parts = block.matrix.reshape(*block.matrix.shape[:2], -1, rings)
    ordered = parts[..., ::-1] if south_first else parts
    matrix = ordered.reshape(block.matrix.shape).astype(dtype)
    return Block(block.first_order, np.ascontiguousarray(matrix))


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
    coefficients = xp.fft.rfft(field) / count
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
    fields = u.shape[0]
    south = _zonal_coefficients(-1 * v, op, xp)
    columns = _interleave(south, _zonal_coefficients(u, op, xp), xp)
    energy = _squares(op, columns, xp).T
    divergent = energy[:fields] + energy[fields : 2 * fields]
    return energy[2 * fields : 3 * fields] + energy[3 * fields :], divergent


def _scalar_power(op: Operator, field: Any, xp: Any) -> Any:
    coefficients = _zonal_coefficients(field, op, xp)
    power = _squares(op, xp.concatenate([coefficients.real, coefficients.imag], -1), xp).T
    return 2 * (power[: field.shape[0]] + power[field.shape[0] :])


def _zonal_coefficients(field: Any, op: Operator, xp: Any) -> Any:
    """Fourier coefficients, complex (order 0..lmax, ring, fields)."""
    coefficients = xp.fft.rfft(field)[..., : op.lmax + 1] / op.longitudes
    turned = xp.moveaxis(coefficients, (0, 1, 2), (2, 1, 0))
    return turned.reshape(-1).reshape(turned.shape)  # in order in memory: the product is faster


def _interleave(south: Any, east: Any, xp: Any) -> Any:
    """Columns whose product with [slope, turn] is Re E, Im E, Re B, Im B of every field."""
    upper = xp.concatenate([south.real, south.imag, east.real, east.imag], -1)
    lower = xp.concatenate([east.imag, -1 * east.real, -1 * south.imag, south.real], -1)
    return xp.concatenate([upper, lower], 1)


def _squares(op: Operator, columns: Any, xp: Any) -> Any:
    """Sum over the orders of (matrix @ columns)^2, (lmax + 1, columns)."""
    if op.refine is not None:
        columns = _refined(op, columns, xp)
    total: Any = None
    for block in op.blocks:
        orders = slice(block.first_order, block.first_order + block.matrix.shape[0])
        squared = ((block.matrix @ columns[orders]) ** 2).sum(0)
        if total is None:
            total = squared
        else:
            total[block.first_order :] += squared
    return total


def _refined(op: Operator, columns: Any, xp: Any) -> Any:
    """Columns (order, parts x ring, fields) on the refined and weighted rings."""
    assert op.refine is not None
    parts = columns.reshape(columns.shape[0], -1, op.rings, columns.shape[-1])
    finer = [
        op.refine[int(is_even(order, op.spin))] @ parts[order] for order in range(parts.shape[0])
    ]
    return xp.stack(finer, 0).reshape(parts.shape[0], -1, parts.shape[-1])
