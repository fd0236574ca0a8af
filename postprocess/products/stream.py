"""What every product of a streaming forecast looks like, and the parts of a step they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.schema import COORDINATE_ATTRIBUTES


class StreamProduct(Protocol):
    """A product that consumes every step of one forecast in order and then gives its result."""

    @property
    def name(self) -> str:
        """Name of the product, also the stem of its files."""

    def update(self, step: ForecastStep) -> None:
        """Take one step in; keeps no reference to `step.fields`."""

    def result(self) -> Any:
        """The product (a Dataset or a table) over the steps seen so far."""


def feed(stream: Iterable[ForecastStep], products: Sequence[StreamProduct]) -> Iterator[int]:
    """Pass every step to every product; yields the step number after each."""
    for step in stream:
        for product in products:
            product.update(step)
        yield step.step


def plane(step: ForecastStep, channel: str) -> NDArray[np.float32]:
    """One channel as (number, latitude, longitude), a view; StoreError when it is absent."""
    if channel not in step.channels:
        raise StoreError(
            f"no channel {channel}",
            where=f"forecast step {step.step}",
            remedy=f"the forecast holds {', '.join(step.channels)}",
        )
    return step.channel(channel)


def forecast_coordinates(
    init_time: np.datetime64, lead_times: Sequence[np.timedelta64]
) -> dict[str, xr.Variable]:
    """Coordinates init_time (scalar), lead_time and valid_time with their CF attributes."""
    leads = np.array(lead_times, dtype="timedelta64[ns]")
    start = init_time.astype("datetime64[ns]")
    return {
        "init_time": xr.Variable((), start, COORDINATE_ATTRIBUTES["init_time"]),
        "lead_time": xr.Variable("lead_time", leads, COORDINATE_ATTRIBUTES["lead_time"]),
        "valid_time": xr.Variable("lead_time", start + leads, COORDINATE_ATTRIBUTES["valid_time"]),
    }


def coordinate(name: str, values: Any) -> xr.Variable:
    """A coordinate variable of the house vocabulary with its CF attributes."""
    return xr.Variable(name, np.asarray(values), COORDINATE_ATTRIBUTES[name])


class SameRun:
    """Guards that all steps of a stream belong to one forecast and follow one another.

    Members may leave on the way (quarantine), never join.
    """

    def __init__(self) -> None:
        self._last: ForecastStep | None = None

    def check(self, step: ForecastStep) -> None:
        """StoreError when `step` is of another cycle, other members or not the next lead."""
        last, self._last = self._last, without_fields(step)
        if last is None:
            return
        where = f"forecast step {step.step} of {np.datetime_as_string(step.init_time, 'h')}"
        if step.init_time != last.init_time:
            raise StoreError(f"the step before was of {last.init_time}", where=where)
        if not set(step.numbers) <= set(last.numbers) or step.channels != last.channels:
            raise StoreError("new members or channels within the forecast", where=where)
        if step.lead_time <= last.lead_time:
            raise StoreError(
                f"lead {step.lead_time} follows {last.lead_time}",
                where=where,
                remedy="feed the steps of one forecast in order, each once",
            )


def without_fields(step: ForecastStep) -> ForecastStep:
    """The step with empty fields: what may be kept of it without holding the producer's array."""
    nothing = np.empty((len(step.numbers), len(step.channels), 0, 0), np.float32)
    return ForecastStep(
        step.init_time, step.step, step.lead_time, step.numbers, step.channels, nothing
    )
