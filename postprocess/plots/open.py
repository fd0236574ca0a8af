"""What a figure needs of a store on disk: the field or dataset, and its stamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.plots.style import Stamp
from postprocess.products.cyclones.formats import read_tracks
from postprocess.products.grids import open_any, selected
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
        if variable not in dataset.data_vars:
            raise InputError(
                f"no variable {variable!r}",
                where=str(path),
                remedy=f"the store holds {', '.join(map(str, dataset.data_vars))}",
            )
        one = selected(dataset[[variable]], select, where=str(path))
        field = one[variable].squeeze(drop=False)
        lead = None
        if "lead_time" in field.coords and field.lead_time.ndim == 0:
            lead = int(field.lead_time.values / _HOUR)
        yield field, stamp, lead


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
    parts = ["Mosaic", str(attrs.get("model_variant", ""))]
    members = dataset.sizes.get("number", attrs.get("members"))
    if members is not None:
        parts.append(f"{members} members")
    is_forecast = attrs.get("title") == FIXED_ATTRIBUTES["title"]
    own = attrs.get("notice", attrs.get("comment", "") if is_forecast else "")
    return Stamp(cycle, " ".join(part for part in parts if part), banner or str(own))
