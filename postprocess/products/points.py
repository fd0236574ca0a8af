"""Time series at points (meteograms): for a station list while streaming, for any point later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, SPACING_DEGREES
from mosaic_core.contract.schema import ArraySchema, DatasetSchema, variable_attributes
from postprocess.products.derived import Plane, planes_of
from postprocess.products.ensemble import sorted_quantiles
from postprocess.products.requests import ProductRequest, Station
from postprocess.products.stream import SameRun, coordinate, forecast_coordinates


def bilinear(
    planes: NDArray[np.float32], latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Values (..., point) of `planes` (..., latitude, longitude) on the 1.5 degree grid.

    Grid-scale values: no correction for the height of a station or for coasts.
    """
    row = (np.asarray(latitudes) - LATITUDE[0]) / SPACING_DEGREES
    column = (np.asarray(longitudes) % 360) / SPACING_DEGREES
    south = np.clip(np.floor(row).astype(int), 0, LATITUDE.size - 2)
    west = np.floor(column).astype(int) % LONGITUDE.size
    east = (west + 1) % LONGITUDE.size
    north_share = (row - south).astype(np.float32)
    east_share = (column - np.floor(column)).astype(np.float32)
    lower = planes[..., south, west] * (1 - east_share) + planes[..., south, east] * east_share
    upper = planes[..., south + 1, west] * (1 - east_share)
    upper = upper + planes[..., south + 1, east] * east_share
    return np.asarray(lower * (1 - north_share) + upper * north_share)


def points_schema(quantities: Sequence[str]) -> DatasetSchema:
    """Schema of the series of these quantities."""
    variables = {"number_of_members": ArraySchema(("lead_time",), dtype="int32")}
    for name in quantities:
        variables[name] = ArraySchema(("station", "number", "lead_time"))
        variables[f"{name}_quantile"] = ArraySchema(("station", "quantile", "lead_time"))
    return DatasetSchema("point series", variables, ascending=("lead_time", "number"))


class PointSeries:
    """Every member's series at stations, and its quantiles.

    `result()` holds for each quantity `<name>` (station, number, lead_time) and `<name>_quantile`
    (station, quantile, lead_time); a member that has left is NaN from then on. Wind speeds are
    formed on the grid before they are interpolated.
    """

    name = "meteograms"

    def __init__(
        self,
        stations: Sequence[Station] = ProductRequest.stations,
        quantities: Sequence[str] = ProductRequest.point_quantities,
        quantiles: Sequence[float] = ProductRequest.quantiles,
    ) -> None:
        if not stations or not quantities:
            raise InputError(
                "no station or no quantity",
                where="point series",
                remedy="name at least one of each, or leave the product out",
            )
        self._stations = tuple(stations)
        self._quantities = tuple(quantities)
        self._quantiles = tuple(quantiles)
        self._latitudes = np.array([station.latitude for station in stations])
        self._longitudes = np.array([station.longitude for station in stations])
        self._run = SameRun()
        self._numbers: tuple[int, ...] = ()
        self._planes: list[Plane] = []
        self._init_time: np.datetime64 = np.datetime64("NaT")
        self._leads: list[np.timedelta64] = []
        self._values: list[NDArray[np.float32]] = []

    def update(self, step: ForecastStep) -> None:
        """Interpolate one lead; StoreError when a quantity is absent."""
        self._run.check(step)
        if not self._numbers:
            self._numbers, self._init_time = step.numbers, step.init_time
            self._planes = [_plane_named(name, step) for name in self._quantities]
        shape = (len(self._planes), len(self._stations), len(self._numbers))
        values = np.full(shape, np.nan, dtype=np.float32)
        alive = [self._numbers.index(number) for number in step.numbers]
        for index, plane in enumerate(self._planes):
            fields = plane.take(step.fields, step.channels)
            values[index, :, alive] = bilinear(fields, self._latitudes, self._longitudes)
        self._values.append(values)
        self._leads.append(step.lead_time)

    def result(self) -> xr.Dataset:
        """The series so far; StoreError when there was no step."""
        if not self._values:
            raise StoreError("no step was given", where=self.name)
        values = np.stack(self._values, axis=-1)
        arrays: dict[str, xr.Variable] = {}
        for name, plane, series in zip(self._quantities, self._planes, values, strict=True):
            attributes = variable_attributes(plane.variable)
            quantiles = _quantiles(series, self._quantiles)
            arrays[name] = xr.Variable(("station", "number", "lead_time"), series, attributes)
            arrays[f"{name}_quantile"] = xr.Variable(
                ("station", "quantile", "lead_time"), quantiles, attributes
            )
        alive = np.isfinite(values[0, 0]).sum(0).astype(np.int32)
        arrays["number_of_members"] = xr.Variable("lead_time", alive, {"units": "1"})
        attrs = {
            "Conventions": "CF-1.12",
            "title": "Point series",
            "comment": "bilinear values of the 1.5 degree grid, not corrected for height or coast",
        }
        dataset = xr.Dataset(arrays, coords=self._coordinates(), attrs=attrs)
        return points_schema(self._quantities).validate(dataset, where=self.name)

    def _coordinates(self) -> dict[str, xr.Variable]:
        names = np.array([station.name for station in self._stations])
        coords = forecast_coordinates(self._init_time, self._leads)
        coords |= {
            "number": coordinate("number", self._numbers),
            "station": xr.Variable("station", names, {"cf_role": "timeseries_id"}),
            "latitude": xr.Variable("station", self._latitudes, {"units": "degrees_north"}),
            "longitude": xr.Variable("station", self._longitudes, {"units": "degrees_east"}),
            "quantile": xr.Variable("quantile", np.array(self._quantiles), {"units": "1"}),
        }
        return coords


def _quantiles(series: NDArray[np.float32], quantiles: Sequence[float]) -> NDArray[np.float32]:
    """(station, quantile, lead) over the members (station, member, lead) that are there."""
    found = np.full((series.shape[0], len(quantiles), series.shape[2]), np.nan, np.float32)
    for lead in range(series.shape[2]):
        members = series[:, :, lead].T
        members = members[np.isfinite(members).all(1)] if members.size else members
        if len(members):
            found[:, :, lead] = sorted_quantiles(np.sort(members, axis=0), quantiles).T
    return found


def _plane_named(name: str, step: ForecastStep) -> Plane:
    """The plane of '2m_temperature', 'wind_speed_850', 'geopotential_500'."""
    for plane in planes_of(step.channels):
        if plane.name == name:
            return plane
    raise StoreError(
        f"no {name} in the forecast",
        where="point series",
        remedy="name a channel such as 2m_temperature, or 10m_wind_speed, wind_speed_850",
    )
