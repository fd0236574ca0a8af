"""A stored forecast as the stream it came from, so that products can be made again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.variables import CHANNELS, Channel
from postprocess.products.grids import open_any

_LEADING = ("number", "lead_time")
_SICK = re.compile(r"member (\d+): (?:.* at \+(\d+) h)?")
_HOUR = np.timedelta64(1, "h")


def stored_steps(path: Path) -> Iterator[ForecastStep]:
    """The steps of the forecast store at `path`, one in memory at a time.

    Channels are those that the store holds, in the model's order. Members that the store says were
    quarantined are passed on as they are, also without a number in them. InputError when there is
    no forecast; StoreError naming the lead and members when something is missing.
    """
    with open_any(path) as dataset:
        yield from steps_of(dataset, str(path))


def quarantined_in(attributes: Mapping[str, object]) -> dict[int, int]:
    """The lead (hours) at which each member of a store was quarantined, by its `member_health`."""
    lines = attributes.get("member_health", ())
    lines = [lines] if isinstance(lines, str) else lines
    assert isinstance(lines, Sequence)
    found = [_SICK.match(str(line)) for line in lines]
    return {int(match[1]): int(match[2] or 0) for match in found if match}


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
    sick = quarantined_in(dataset.attrs)
    for index, lead in enumerate(leads):
        fields = _fields(one.isel(lead_time=index), channels)
        hours = int(lead / _HOUR)
        left = [number for number, since in sick.items() if since <= hours]
        _require_whole(_empty_maps(fields, numbers, left), numbers, names, hours, where)
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


def _empty_maps(
    fields: NDArray[np.float32], numbers: tuple[int, ...], left: Sequence[int]
) -> NDArray[np.bool_]:
    """Whole maps of NaN, (member, channel), that are no member's blowing up: chunks that were
    never written. Members that have left may be NaN as long as another is not."""
    empty = np.asarray(np.isnan(fields).all(axis=(2, 3)))
    if not empty.any(1).all():
        empty[np.isin(numbers, left)] = False
    return empty


def _require_whole(
    empty: NDArray[np.bool_],
    numbers: tuple[int, ...],
    names: tuple[str, ...],
    hours: int,
    where: str,
) -> None:
    """StoreError when a map is missing."""
    if not empty.any():
        return
    members = [numbers[index] for index in np.unique(np.argwhere(empty)[:, 0])]
    absent = [names[index] for index in np.unique(np.argwhere(empty)[:, 1])]
    raise StoreError(
        f"lead +{hours} h is missing for members {members} ({', '.join(absent[:4])}"
        f"{', ...' if len(absent) > 4 else ''})",
        where=where,
        remedy="finish the forecast by running its cycle again, then make the products (members "
        "that blew up would be named in its attribute member_health)",
    )
