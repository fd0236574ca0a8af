"""Spectra of scalar fields: variance per degree, and zonal power as WeatherBench 2 shows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.grid import LATITUDE
from mosaic_core.contract.variables import channel
from postprocess.products.requests import ProductRequest
from postprocess.products.spectra.energy import operator, variance, zonal_power
from postprocess.products.stream import SameRun, coordinate, forecast_coordinates, plane

ZONAL_BAND = (30.0, 60.0)  # degrees from the equator, the band of WeatherBench 2's figures


class ScalarSpectra:
    """Spectra of the channels in `scalars`, every member and lead.

    `result()` has `variance_<channel>` (number, lead_time, degree) in squared units, whose sum
    over degrees is the area mean of the square, and `zonal_power_<channel>` (number, lead_time,
    zonal_wavenumber) in squared units times m, the mean over latitudes 30-60 of both hemispheres.
    Members that have left are NaN.
    """

    name = "scalar_spectra"

    def __init__(self, scalars: Sequence[str] = ProductRequest.spectra_scalars) -> None:
        self._scalars = tuple(channel(name).name for name in scalars)
        self._run = SameRun()
        self._numbers: tuple[int, ...] = ()
        self._init_time: np.datetime64 = np.datetime64("NaT")
        self._leads: list[np.timedelta64] = []
        self._found: dict[str, list[NDArray[np.float32]]] = {}

    def update(self, step: ForecastStep) -> None:
        """Transform one lead; StoreError when a channel is absent."""
        self._run.check(step)
        self._numbers = self._numbers or step.numbers
        self._init_time = step.init_time
        self._leads.append(step.lead_time)
        for name in self._scalars:
            fields = plane(step, name)
            self._keep(f"variance_{name}", _variance(fields), step.numbers)
            self._keep(f"zonal_power_{name}", _zonal(fields), step.numbers)

    def result(self) -> xr.Dataset:
        """The spectra so far; StoreError when there was no step."""
        if not self._leads:
            raise StoreError("no step was given", where=self.name)
        arrays = {}
        for name in self._scalars:
            units = channel(name).variable.units
            for kind, dim, unit, words in (
                ("variance", "degree", f"({units})2", "variance per degree"),
                ("zonal_power", "zonal_wavenumber", f"({units})2 m", "zonal power, 30-60 degrees"),
            ):
                values = np.stack(self._found[f"{kind}_{name}"], axis=1)
                attributes = {"long_name": f"{words} of {name}", "units": unit}
                dims = ("number", "lead_time", dim)
                arrays[f"{kind}_{name}"] = xr.Variable(dims, values, attributes)
        coords = forecast_coordinates(self._init_time, self._leads)
        coords["number"] = coordinate("number", self._numbers)
        dataset = xr.Dataset(arrays, coords=coords)
        dataset = dataset.assign_coords(
            {dim: np.arange(dataset.sizes[dim]) for dim in ("degree", "zonal_wavenumber")}
        )
        dataset.attrs = {"Conventions": "CF-1.12", "title": "Spectra of scalar fields"}
        return dataset

    def _keep(self, name: str, values: NDArray[np.float32], numbers: tuple[int, ...]) -> None:
        whole = np.full((len(self._numbers), values.shape[-1]), np.nan, dtype=np.float32)
        whole[[self._numbers.index(number) for number in numbers]] = values
        self._found.setdefault(name, []).append(whole)


def _variance(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """Double precision inside: the mean of geopotential is far larger than its small scales."""
    op = operator(*fields.shape[-2:], spin=0, south_first=True)
    return np.asarray(variance(op, fields.astype(np.float64)), dtype=np.float32)


def _zonal(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    south, north = ZONAL_BAND
    rows = (np.abs(LATITUDE) >= south) & (np.abs(LATITUDE) <= north)
    power = zonal_power(fields[:, rows].astype(np.float64), LATITUDE[rows])
    return np.asarray(power.mean(1), dtype=np.float32)
