"""Anomalies, extreme forecast index, shift of tails and anomaly correlation.

All need a climatology artefact, which no deployment has by default: without it these products are
absent. Format: a Zarr store or NetCDF file on the model's grid with, for each quantity,

- `<name>_mean` (dayofyear, latitude, longitude): mean of the climate;
- `<name>_quantile` (dayofyear, quantile, latitude, longitude): the 101 quantiles 0, 0.01 ... 1,
  which do not decrease; NaN where there is no climate (the indices are NaN there);

both with an attribute `units`, that of the quantity in the forecast;

`dayofyear` 1..366 (any subset, the nearest day counts), and an attribute `climate` that names the
period and the model it was made with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.files import sha256_file
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights
from postprocess.products.grids import open_any

QUANTILES = np.linspace(0.0, 1.0, 101)
SOT_TAIL = 0.9  # the quantile of the forecast that is compared with the climate's tail
_YEAR = 366


@dataclass(frozen=True)
class Climate:
    """The climate of one quantity on one day: mean (latitude, longitude), 101 quantiles first."""

    mean: NDArray[np.float64]
    quantiles: NDArray[np.float64]


def read_climate(path: Path, name: str, units: str, day_of_year: int) -> Climate:
    """The climate in `units` nearest to a day (1..366); DataError lists all that is wrong."""
    with open_any(path) as dataset:
        _refuse(_faults(dataset, name, units), path, name)
        apart = np.abs(dataset.dayofyear.values - day_of_year)
        day = int(np.argmin(np.minimum(apart, _YEAR - apart)))
        one = dataset.isel(dayofyear=day)
        mean = one[f"{name}_mean"].transpose("latitude", "longitude")
        quantiles = one[f"{name}_quantile"].transpose("quantile", "latitude", "longitude")
        climate = Climate(mean.values.astype(np.float64), quantiles.values.astype(np.float64))
    falling = int((np.diff(climate.quantiles, axis=0) < 0).any(0).sum())
    if falling:
        fault = f"{name}_quantile: decreases with the quantile at {falling} points"
        _refuse([f"{fault}, day {int(one.dayofyear)}"], path, name)
    return climate


def climatology_sha256(path: Path) -> str:
    """Digest of an artefact's content: the file, or names and content of the files of a store.

    InputError when there is none.
    """
    if path.is_file():
        return sha256_file(path)
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    if not files:
        raise InputError("no such file or store", where=str(path), remedy="check the path")
    digest = hashlib.sha256()
    for entry in files:
        digest.update(f"{entry.relative_to(path).as_posix()} {sha256_file(entry)}\n".encode())
    return digest.hexdigest()


def _refuse(faults: Sequence[str], path: Path, name: str) -> None:
    if faults:
        raise DataError(
            f"not a climatology of {name}:\n  - " + "\n  - ".join(faults),
            where=str(path),
            remedy="see postprocess/products/climatology.py for the format",
        )


def _faults(dataset: xr.Dataset, name: str, units: str) -> list[str]:
    found = []
    for variable in (f"{name}_mean", f"{name}_quantile"):
        if variable not in dataset:
            found.append(f"{variable}: missing")
        elif dataset[variable].attrs.get("units") != units:
            given = dataset[variable].attrs.get("units")
            found.append(f"{variable}: units {given!r}, expected {units!r}")
    for dim, values in (("latitude", LATITUDE), ("longitude", LONGITUDE), ("quantile", QUANTILES)):
        if dim not in dataset.coords or not _same(dataset[dim].values, values):
            found.append(f"{dim}: not the {values.size} values {values[0]:g} to {values[-1]:g}")
    if "dayofyear" not in dataset.coords:
        found.append("dayofyear: coordinate missing")
    if "climate" not in dataset.attrs:
        found.append("climate: attribute missing (period and model)")
    return found


def _same(found: NDArray[np.floating], expected: NDArray[np.float64]) -> bool:
    return found.shape == expected.shape and bool(np.allclose(found, expected, atol=1e-9))


def anomaly(field: NDArray[np.floating], climate: Climate) -> NDArray[np.float64]:
    """`field` (..., latitude, longitude) minus the climate's mean."""
    return np.asarray(field - climate.mean)


def anomaly_correlation(
    forecast: NDArray[np.floating], truth: NDArray[np.floating], climate: Climate
) -> NDArray[np.float64]:
    """Area-weighted, centred correlation of anomalies (..., latitude, longitude) -> (...)."""
    weights = area_weights(LATITUDE)[:, None] / (LATITUDE.size * LONGITUDE.size)
    a, b = (anomaly(field, climate) for field in (forecast, truth))
    a = a - (a * weights).sum((-2, -1), keepdims=True)
    b = b - (b * weights).sum((-2, -1), keepdims=True)
    product = (a * b * weights).sum((-2, -1))
    size = np.sqrt((a**2 * weights).sum((-2, -1)) * (b**2 * weights).sum((-2, -1)))
    return np.asarray(product / size)


def extreme_forecast_index(members: NDArray[np.floating], climate: Climate) -> NDArray[np.float64]:
    """EFI (latitude, longitude), -1..1, of `members` (member, latitude, longitude).

    EFI = 2 / pi * integral of (p - F(p)) / sqrt(p (1 - p)) dp with F(p) the share of members below
    the climate's quantile p (Lalaurie 2003; Zsoter 2006), F linear between the quantiles. The
    integral of each interval is exact: with p = sin^2(t), dp / sqrt(p (1 - p)) = 2 dt.
    NaN where a quantile or a member is not finite.
    """
    share = np.stack([(members <= level).mean(0) for level in climate.quantiles])
    gap = QUANTILES[:, None, None] - share
    # On an interval p - F is linear in p: a + b p, and its integral is 2 a t + b (t - sin t cos t).
    slope = np.diff(gap, axis=0) / np.diff(QUANTILES)[:, None, None]
    start = gap[:-1] - slope * QUANTILES[:-1, None, None]
    angle = np.arcsin(np.sqrt(QUANTILES))
    twice = 2 * np.diff(angle)[:, None, None]
    curved = np.diff(angle - np.sin(angle) * np.cos(angle))[:, None, None]
    index = 2 / np.pi * (start * twice + slope * curved).sum(0)
    known = np.isfinite(climate.quantiles).all(0) & np.isfinite(members).all(0)
    return np.where(known, index, np.nan)


def shift_of_tails(members: NDArray[np.floating], climate: Climate) -> NDArray[np.float64]:
    """SOT (latitude, longitude) of the upper tail: how far the forecast's 90 % quantile lies
    beyond the climate's 99 %, in units of the climate's own distance from 90 % to 99 %.

    SOT = (Qf(0.9) - Qc(0.99)) / (Qc(0.99) - Qc(0.9)) (Zsoter 2006); NaN where the climate has no
    spread there.
    """
    forecast = np.quantile(members, SOT_TAIL, axis=0)
    far, near = climate.quantiles[99], climate.quantiles[90]
    width = far - near
    return np.asarray((forecast - far) / np.where(width > 0, width, np.nan))
