"""What a figure needs of a store on disk: the field or dataset, and its stamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.plots.style import Stamp, members_told
from postprocess.products.cyclones.formats import read_tracks
from postprocess.products.grids import open_any, selected
from postprocess.products.stored import quarantined_in
from postprocess.provenance import FIXED_ATTRIBUTES

_HOUR = np.timedelta64(1, "h")


@contextmanager
def opened(path: Path, banner: str = "") -> Iterator[tuple[xr.Dataset, Stamp]]:
    """A store and the stamp of its cycle."""
    with open_any(path) as dataset:
        yield dataset, stamp_of(dataset, banner)


@contextmanager
def field_of(
    path: Path, variable: str, select: Sequence[str], banner: str = ""
) -> Iterator[tuple[xr.DataArray, Stamp, int | None]]:
    """One variable with the selections made, its stamp and its lead in hours (None without).

    Lead times are selected in hours: lead_time=24. InputError when there is no such variable.
    """
    with opened(path, banner) as (dataset, stamp):
        field = _selected(dataset, variable, select, str(path))
        yield field, stamp, _lead_hours(field)


@contextmanager
def members_of(
    path: Path, variable: str, select: Sequence[str], banner: str = ""
) -> Iterator[tuple[xr.DataArray, Stamp, int | None]]:
    """As `field_of`, without the members that the store says were quarantined by that lead."""
    with opened(path, banner) as (dataset, stamp):
        field = _selected(dataset, variable, select, str(path))
        lead = _lead_hours(field)
        if "number" in field.dims:
            sick = [number for number, since in quarantined_in(dataset.attrs).items()
                    if lead is None or since <= lead]  # fmt: skip
            field = field.isel(number=~np.isin(field.number.values, sick))
            told = members_told(field.sizes["number"], dataset.sizes["number"])
            stamp = replace(stamp, source=f"{_model(dataset)}, {told}")
        yield field, stamp, lead


def _selected(
    dataset: xr.Dataset, variable: str, select: Sequence[str], where: str
) -> xr.DataArray:
    if variable not in dataset.data_vars:
        raise InputError(
            f"no variable {variable!r}",
            where=where,
            remedy=f"the store holds {', '.join(map(str, dataset.data_vars))}",
        )
    return selected(dataset[[variable]], select, where=where)[variable].squeeze(drop=False)


def _lead_hours(field: xr.DataArray) -> int | None:
    if "lead_time" not in field.coords or field.lead_time.ndim:
        return None
    return int(field.lead_time.values / _HOUR)


def tracks_of(path: Path, banner: str = "") -> tuple[pd.DataFrame, Stamp]:
    """A track table and its stamp; a table without tracks does not know its cycle."""
    table = read_tracks(path)
    if table.empty:
        return table, Stamp("unknown: no track", banner=banner)
    cycle = Cycle.from_datetime64(np.datetime64(table.init_time.iloc[0]))
    return table, Stamp(cycle.label, f"Mosaic, {table.number.nunique()} members", banner)


def stamp_of(dataset: xr.Dataset, banner: str = "") -> Stamp:
    """Cycle from init_time; the source line from the attributes; the store's own notice warns.

    The notice of a forecast store is its comment; products have comments of their own.
    """
    cycle = "unknown cycle"
    if "init_time" in dataset.coords:
        first = dataset.init_time.values.reshape(-1)[0].astype("datetime64[ns]")
        cycle = Cycle.from_datetime64(first).label
    attrs = dataset.attrs
    members = dataset.sizes.get("number", attrs.get("members"))
    source = _model(dataset) if members is None else f"{_model(dataset)}, {members} members"
    is_forecast = attrs.get("title") == FIXED_ATTRIBUTES["title"]
    own = attrs.get("notice", attrs.get("comment", "") if is_forecast else "")
    return Stamp(cycle, source, banner or str(own))


def _model(dataset: xr.Dataset) -> str:
    return f"Mosaic {dataset.attrs.get('model_variant', '')}".rstrip()
