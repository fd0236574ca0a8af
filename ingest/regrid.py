"""First-order conservative regridding between global latitude-longitude grids.

The scheme is WeatherBench 2's (the model was trained on it) and equals SCRIP's on these grids:
the overlap of two cells is a product of a latitude part, proportional to the difference of the
sines of the bounds, and a longitude part, proportional to the arc. So the operator is two small
sparse matrices, result = W_lat F W_lon^T, each row summing to 1. Rows at the poles are caps; they
keep their structure in longitude.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, latitude_bounds

Array = NDArray[np.floating]
_CIRCLE = 360.0
# Spacing of a longitude axis may differ from even by what a GRIB header rounds away (1e-6 degree).
_SPACING_TOLERANCE = 1e-5
_BLOCK_ROWS = 12  # on 0.25 degree 73 source rows, 840 KB


def latitude_weights(source: Array, target: Array) -> csr_array:
    """Weights (target, source) in float64 with rows summing to 1.

    Both axes are cell centres in degrees, strictly monotonic in either direction; bounds are
    midpoints, the outermost at the poles.
    """
    _require_monotonic(source, "latitude")
    source_low, source_high = _sine_bounds(source)
    target_low, target_high = _sine_bounds(target)
    overlap = np.minimum.outer(target_high, source_high) - np.maximum.outer(target_low, source_low)
    return _normalised(np.maximum(overlap, 0.0))


def longitude_weights(source: Array, target: Array) -> csr_array:
    """Weights (target, source) in float64 with rows summing to 1, on the full circle.

    Both axes are cell centres in degrees, evenly spaced around the whole circle, from any origin.
    """
    source_step, target_step = _full_circle_step(source), _full_circle_step(target)
    distance = np.subtract.outer(np.asarray(target, np.float64), np.asarray(source, np.float64))
    distance = np.abs((distance + _CIRCLE / 2) % _CIRCLE - _CIRCLE / 2)
    reach = (source_step + target_step) / 2
    overlap = np.clip(reach - distance, 0.0, min(source_step, target_step))
    # Cells that only touch would leave weights of 1e-14 from rounding.
    overlap[overlap < 1e-9 * source_step] = 0.0
    return _normalised(overlap)


def _sine_bounds(latitude: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    bounds = np.sin(np.deg2rad(latitude_bounds(latitude)))
    return np.minimum(bounds[:-1], bounds[1:]), np.maximum(bounds[:-1], bounds[1:])


def _normalised(overlap: NDArray[np.float64]) -> csr_array:
    return csr_array(overlap / overlap.sum(axis=1, keepdims=True))


def _require_monotonic(axis: Array, name: str) -> None:
    steps = np.diff(np.asarray(axis, np.float64))
    if axis.ndim != 1 or axis.size < 2 or not (np.all(steps > 0) or np.all(steps < 0)):
        raise InputError(f"{name} is not strictly monotonic", remedy="sort the axis and the data")


def _full_circle_step(longitude: Array) -> float:
    axis = np.asarray(longitude, np.float64)
    _require_monotonic(axis, "longitude")
    steps = np.abs(np.diff(axis))
    step = float(steps.mean())
    even = np.all(np.abs(steps - step) < _SPACING_TOLERANCE)
    if not even or abs(step * axis.size - _CIRCLE) > step / 2:
        raise InputError(
            f"longitude from {axis[0]:g} to {axis[-1]:g} in {axis.size} points is not an even, "
            "full circle",
            remedy="give global fields on a regular latitude-longitude grid",
        )
    return _CIRCLE / axis.size


def _row_blocks(weights: csr_array) -> Iterator[tuple[slice, csr_array]]:
    """The matrix in blocks of target rows, each with the source rows it needs."""
    for start in range(0, weights.shape[0], _BLOCK_ROWS):
        block = weights[start : start + _BLOCK_ROWS]
        rows = slice(int(block.indices.min()), int(block.indices.max()) + 1)
        yield rows, block[:, rows]


class ConservativeRegridder:
    """Regrid (..., latitude, longitude) fields; by default to the model's 1.5 degree grid.

    Axes are cell centres in degrees, latitudes in either direction, longitudes from any origin.
    The area mean is conserved and a constant stays itself, to rounding. NaN marks missing cells:
    a target cell is the mean of the valid part of its area, and NaN only where no part is valid.
    Sums run in float64; float32 in gives float32 out.
    """

    def __init__(
        self,
        latitude_in: Array,
        longitude_in: Array,
        latitude_out: Array = LATITUDE,
        longitude_out: Array = LONGITUDE,
    ) -> None:
        self.shape_in = (latitude_in.size, longitude_in.size)
        self.latitude_weights = latitude_weights(latitude_in, latitude_out)
        self.longitude_weights = longitude_weights(longitude_in, longitude_out)
        self._blocks = tuple(_row_blocks(self.latitude_weights))

    def __call__(self, field: Array) -> Array:
        """The field on the target grid, (..., latitude_out, longitude_out)."""
        if field.shape[-2:] != self.shape_in:
            raise InputError(
                f"field has shape {field.shape}, expected (..., {self.shape_in[0]}, "
                f"{self.shape_in[1]})",
                where="regrid",
                remedy="build the regridder from the field's own axes",
            )
        planes = field.reshape(-1, *self.shape_in)
        result = np.stack([self._plane(plane) for plane in planes])
        return result.reshape(*field.shape[:-2], *result.shape[1:]).astype(field.dtype, copy=False)

    def _plane(self, plane: Array) -> NDArray[np.float64]:
        regridded = self._apply(plane)
        if not np.isnan(regridded.min()):  # every cell of the source is part of some cell
            return regridded
        valid = ~np.isnan(plane)
        weight = self._apply(valid.astype(np.float64))
        total = self._apply(np.where(valid, plane, 0.0))
        # Below 1e-12 of its area a cell holds only the rounding of the weights.
        safe = np.where(weight > 1e-12, weight, np.nan)
        return total / safe

    def _apply(self, plane: Array) -> NDArray[np.float64]:
        # Blocks of rows in float64 stay in the processor's cache; a whole plane is 8 MB.
        by_row = np.concatenate(
            [weights @ plane[rows].astype(np.float64) for rows, weights in self._blocks]
        )
        result: NDArray[np.float64] = (self.longitude_weights @ by_row.T).T
        return result
