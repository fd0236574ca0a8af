"""Anomaly, extreme forecast index and shift of tails of every lead, given a climatology."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import DataError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.climatology import (
    extreme_forecast_index,
    read_climate,
    shift_of_tails,
)
from postprocess.products.derived import Plane, planes_of
from postprocess.products.grids import open_any
from postprocess.products.stream import SameRun, coordinate, forecast_coordinates

_MEAN = "_mean"


class ClimateIndices:
    """What the forecast is against the climate of the day, for each quantity of a climatology.

    `result()` holds `<name>_anomaly` of the ensemble mean, `<name>_efi` (-1..1) and `<name>_sot`
    (lead_time, latitude, longitude) float32; names are those of the planes, such as
    2m_temperature or wind_speed_850. The artefact's format stands in
    postprocess.products.climatology; DataError when it holds none of the forecast's quantities.
    """

    name = "indices"

    def __init__(self, climatology: Path) -> None:
        self._path = climatology
        self._read = lru_cache(maxsize=8)(partial(read_climate, climatology))
        with open_any(climatology) as dataset:
            names = [str(name) for name in dataset]
            self._named = {name.removesuffix(_MEAN) for name in names if name.endswith(_MEAN)}
            self._climate = str(dataset.attrs.get("climate", ""))
        self._run = SameRun()
        self._planes: list[Plane] = []
        self._init_time: np.datetime64 = np.datetime64("NaT")
        self._leads: list[np.timedelta64] = []
        self._fields: dict[str, list[NDArray[np.float32]]] = {}

    def update(self, step: ForecastStep) -> None:
        """Compare one lead with the climate of its day."""
        self._run.check(step)
        if not self._leads:
            self._init_time = step.init_time
            self._planes = self._compared(step)
        day = _day_of_year(step.init_time + step.lead_time)
        for plane in self._planes:
            climate = self._read(plane.name, plane.variable.units, day)
            members = plane.take(step.fields, step.channels)
            for index, values in (
                ("anomaly", members.mean(0, dtype=np.float64) - climate.mean),
                ("efi", extreme_forecast_index(members, climate)),
                ("sot", shift_of_tails(members, climate)),
            ):
                self._fields.setdefault(f"{plane.name}_{index}", []).append(
                    values.astype(np.float32)
                )
        self._leads.append(step.lead_time)

    def result(self) -> xr.Dataset:
        """The indices so far; StoreError when there was no step."""
        if not self._leads:
            raise StoreError("no step was given", where=self.name)
        arrays = {
            f"{plane.name}_{index}": xr.Variable(
                ("lead_time", "latitude", "longitude"),
                np.stack(self._fields[f"{plane.name}_{index}"]),
                {"long_name": f"{plane.name.replace('_', ' ')}, {meaning}", "units": units},
            )
            for plane in self._planes
            for index, meaning, units in (
                ("anomaly", "ensemble mean minus the climate's mean", plane.variable.units),
                ("efi", "extreme forecast index", "1"),
                ("sot", "shift of tails", "1"),
            )
        }
        coords = forecast_coordinates(self._init_time, self._leads)
        coords["latitude"] = coordinate("latitude", LATITUDE)
        coords["longitude"] = coordinate("longitude", LONGITUDE)
        attrs = {"Conventions": "CF-1.12", "title": "Indices", "climate": self._climate}
        return xr.Dataset(arrays, coords=coords, attrs=attrs)

    def _compared(self, step: ForecastStep) -> list[Plane]:
        planes = [plane for plane in planes_of(step.channels) if plane.name in self._named]
        if not planes:
            raise DataError(
                f"no quantity of the forecast: {', '.join(sorted(self._named)) or 'nothing'}",
                where=str(self._path),
                remedy="see postprocess/products/climatology.py for the format",
            )
        return planes


def _day_of_year(time: np.datetime64) -> int:
    start_of_year = time.astype("datetime64[Y]").astype("datetime64[D]")
    return int((time.astype("datetime64[D]") - start_of_year) / np.timedelta64(1, "D")) + 1
