"""A stored forecast as the stream it came from, so that products can be made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.variables import CHANNELS, Channel
from postprocess.products.grids import open_any

_LEADING = ("number", "lead_time")


def stored_steps(path: Path) -> Iterator[ForecastStep]:
    """The steps of the forecast store at `path`, one in memory at a time.

    Channels are those that the store holds, in the model's order. InputError when there is no
    forecast; StoreError naming the lead and members when something is missing.
    """
    with open_any(path) as dataset:
        yield from steps_of(dataset, str(path))


def steps_of(dataset: xr.Dataset, where: str) -> Iterator[ForecastStep]:
    """The steps of a forecast dataset (init_time of length 1 or scalar, number, lead_time, ...)."""
    missing = [name for name in (*_LEADING, "init_time") if name not in dataset.coords]
    channels = _channels_in(dataset)
    if missing or not channels:
        raise InputError(
            f"not a forecast: missing {', '.join(missing) or 'every variable'}",
            where=where,
            remedy="give a store with init_time, number, lead_time and the model's variables",
        )
    one = dataset.isel(init_time=0) if "init_time" in dataset.dims else dataset
    one = one.transpose(*_LEADING, ...)
    numbers = tuple(int(number) for number in one.number.values)
    names = tuple(entry.name for entry in channels)
    leads = one.lead_time.values.astype("timedelta64[ns]")
    for index, lead in enumerate(leads):
        fields = _fields(one.isel(lead_time=index), channels)
        _require_whole(fields, numbers, names, lead, where)
        init_time = one.init_time.values[()].astype("datetime64[ns]")
        yield ForecastStep(init_time, index, lead, numbers, names, fields)


def _channels_in(dataset: xr.Dataset) -> list[Channel]:
    levels = set(dataset.level.values.tolist()) if "level" in dataset.coords else set()
    return [
        entry
        for entry in CHANNELS
        if entry.variable.name in dataset.data_vars
        and (entry.level_hpa is None or entry.level_hpa in levels)
    ]


def _fields(lead: xr.Dataset, channels: list[Channel]) -> NDArray[np.float32]:
    """(number, channel, latitude, longitude) of one lead; each variable is read once."""
    read = {name: lead[name].transpose("number", ..., "latitude", "longitude").load()
            for name in dict.fromkeys(entry.variable.name for entry in channels)}  # fmt: skip
    planes = [
        read[entry.variable.name].values
        if entry.level_hpa is None
        else read[entry.variable.name].sel(level=entry.level_hpa).values
        for entry in channels
    ]
    return np.stack(planes, axis=1).astype(np.float32, copy=False)


def _require_whole(
    fields: NDArray[np.float32],
    numbers: tuple[int, ...],
    names: tuple[str, ...],
    lead: np.timedelta64,
    where: str,
) -> None:
    """StoreError when a whole map is NaN: a chunk that was never written."""
    empty = np.asarray(np.isnan(fields).all(axis=(2, 3)))
    if not empty.any():
        return
    members = [numbers[index] for index in np.unique(np.argwhere(empty)[:, 0])]
    absent = [names[index] for index in np.unique(np.argwhere(empty)[:, 1])]
    hours = int(lead / np.timedelta64(1, "h"))
    raise StoreError(
        f"lead +{hours} h is missing for members {members} ({', '.join(absent[:4])}"
        f"{', ...' if len(absent) > 4 else ''})",
        where=where,
        remedy="finish the forecast by running its cycle again, then make the products",
    )
