"""Probabilities that a quantity is above or below thresholds, at instants and in windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ArraySchema, DatasetSchema
from postprocess.products.derived import Plane, planes_of
from postprocess.products.requests import DEFAULT_EVENTS, Event
from postprocess.products.stream import (
    SameRun,
    coordinate,
    forecast_coordinates,
    without_fields,
)

_HOUR = np.timedelta64(1, "h")
_MAP = ("latitude", "longitude")


def exceedance_schema(events: Sequence[Event]) -> DatasetSchema:
    """Schema of the probabilities of these events."""
    variables = {"number_of_members": ArraySchema(("lead_time",), dtype="int32")}
    for event in events:
        for suffix, dim in (("", "lead_time"), ("_in_window", "window")):
            variables[f"{event.name}_probability{suffix}"] = ArraySchema(
                (f"{event.name}_threshold", dim, *_MAP), attributes={"units": "1"}
            )
    return DatasetSchema(
        "probabilities of events",
        variables,
        fixed={"latitude": LATITUDE, "longitude": LONGITUDE},
        ascending=("lead_time", "window"),
    )


class ExceedanceProbabilities:
    """Share of members for which each event holds, at every lead and within windows.

    `result()` has for each event `<event>_probability` (<event>_threshold, lead_time, latitude,
    longitude), and `<event>_probability_in_window` (<event>_threshold, window, ...): the share of
    members for which it holds at any lead after the start of the window up to its end. Leads that
    do not fill a whole window at the end have no window. `window_hours` must be a whole number of
    steps of the forecast: `update` raises InputError at the first lead that shows it is not.
    """

    name = "probabilities"

    def __init__(self, events: Sequence[Event] = DEFAULT_EVENTS, window_hours: int = 24) -> None:
        names = [event.name for event in events]
        if len(set(names)) < len(names) or not names:
            raise InputError(
                f"events {names}",
                where=self.name,
                remedy="name at least one, and give all thresholds of a quantity and side in one",
            )
        self._events = tuple(events)
        self._window_hours = window_hours
        self._run = SameRun()
        self._steps: list[ForecastStep] = []
        self._last_hours = 0
        self._window_ends: list[int] = []
        self._instants: list[list[NDArray[np.float32]]] = []
        self._windows: list[list[NDArray[np.float32]]] = []
        self._open: list[dict[int, NDArray[np.bool_]]] = []

    def update(self, step: ForecastStep) -> None:
        """Count the events of one lead; StoreError when a quantity is absent."""
        self._run.check(step)
        truths = [self._truth(event, step) for event in self._events]
        self._instants.append([truth.mean(0, dtype=np.float32) for truth in truths])
        if step.lead_time > np.timedelta64(0):
            self._extend(step, truths)
        self._steps.append(without_fields(step))

    def result(self) -> xr.Dataset:
        """The probabilities so far; StoreError when there was no step."""
        if not self._steps:
            raise StoreError("no step was given", where=self.name)
        first = self._steps[0]
        coords = forecast_coordinates(first.init_time, [step.lead_time for step in self._steps])
        ends = np.array(self._window_ends, dtype=np.int64)
        about = {
            "units": "h",
            "long_name": "lead at the end of the window",
            "window_hours": self._window_hours,
        }
        coords |= {
            "window": xr.Variable("window", ends, about),
            "latitude": coordinate("latitude", LATITUDE),
            "longitude": coordinate("longitude", LONGITUDE),
        }
        arrays: dict[str, xr.Variable] = {}
        for index, event in enumerate(self._events):
            arrays |= self._of_event(index, event)
            coords[f"{event.name}_threshold"] = _threshold_coordinate(event, first)
        counts = np.array([len(step.numbers) for step in self._steps], dtype=np.int32)
        arrays["number_of_members"] = xr.Variable("lead_time", counts, {"units": "1"})
        attrs = {"Conventions": "CF-1.12", "title": "Probabilities of events"}
        dataset = xr.Dataset(arrays, coords=coords, attrs=attrs)
        return exceedance_schema(self._events).validate(dataset, where=self.name)

    def _truth(self, event: Event, step: ForecastStep) -> NDArray[np.bool_]:
        """(member, threshold, latitude, longitude)."""
        plane = _plane_of(event, step)
        values = plane.take(step.fields, step.channels)[:, np.newaxis]
        limits = event.thresholds(plane.variable).astype(np.float32).reshape(-1, 1, 1)
        return np.asarray(values > limits if event.side == "above" else values < limits)

    def _extend(self, step: ForecastStep, truths: list[NDArray[np.bool_]]) -> None:
        """Add a lead to the open window; close the window when the lead is its end."""
        lead_hours = int(step.lead_time / _HOUR)
        self._require_whole_windows(lead_hours)
        if not self._open:
            self._open = [{} for _ in self._events]
        for held, truth in zip(self._open, truths, strict=True):
            for number, own in zip(step.numbers, truth, strict=True):
                held[number] = held[number] | own if number in held else own
        self._last_hours = lead_hours
        if lead_hours % self._window_hours:
            return
        self._window_ends.append(lead_hours)
        self._windows.append(
            [
                np.mean([held[number] for number in step.numbers], axis=0, dtype=np.float32)
                for held in self._open
            ]
        )
        self._open = []

    def _require_whole_windows(self, lead_hours: int) -> None:
        """InputError when a window would end between this lead and the one before."""
        hours = lead_hours - self._last_hours
        end = (self._last_hours // self._window_hours + 1) * self._window_hours
        if self._window_hours % hours or lead_hours > end:
            raise InputError(
                f"windows of {self._window_hours} h, but lead +{lead_hours} h follows "
                f"+{self._last_hours} h",
                where="products.window_hours",
                remedy=f"give whole steps of the forecast; a window would end at +{end} h",
            )

    def _of_event(self, index: int, event: Event) -> dict[str, xr.Variable]:
        dim = f"{event.name}_threshold"
        shape = (len(event.values), 0, LATITUDE.size, LONGITUDE.size)
        attributes = {
            "long_name": f"share of members with {event.name.replace('_', ' ')} the threshold",
            "units": "1",
            "comparison": ">" if event.side == "above" else "<",
        }
        instants = np.stack([found[index] for found in self._instants], axis=1)
        windows = [found[index] for found in self._windows]
        within = np.stack(windows, axis=1) if windows else np.zeros(shape, np.float32)
        name = f"{event.name}_probability"
        return {
            name: xr.Variable((dim, "lead_time", *_MAP), instants, attributes),
            f"{name}_in_window": xr.Variable((dim, "window", *_MAP), within, attributes),
        }


def _plane_of(event: Event, step: ForecastStep) -> Plane:
    for plane in planes_of(step.channels):
        if plane.variable.name == event.variable and plane.level_hpa == event.level_hpa:
            return plane
    place = "" if event.level_hpa is None else f" at {event.level_hpa} hPa"
    raise StoreError(
        f"no {event.variable}{place}",
        where=f"event {event.name}",
        remedy="drop the event or give a forecast that holds the quantity",
    )


def _threshold_coordinate(event: Event, step: ForecastStep) -> xr.Variable:
    variable = _plane_of(event, step).variable
    attributes = {"standard_name": variable.standard_name, "units": variable.units}
    return xr.Variable(f"{event.name}_threshold", event.thresholds(variable), attributes)
