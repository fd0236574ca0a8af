"""A product that grows by one lead at a time, in memory or in a Zarr store."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mosaic_core.contract.errors import StoreError
from postprocess.lead_store import LeadStore

_LEAD = "lead_time"


class LeadSeries:
    """Datasets with one lead each, joined along lead_time.

    With `path` each lead is written to a Zarr store there as it comes (an older store at that
    path is removed first) and memory holds one lead; without, all leads are kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._store = LeadStore(path) if path is not None else None
        self._held: list[xr.Dataset] = []
        self._count = 0

    def append(self, dataset: xr.Dataset) -> None:
        """Add one lead: variables without lead_time must repeat those of the first."""
        if self._store is None:
            self._held.append(dataset)
        else:
            self._store.append(dataset)
        self._count += 1

    def result(self, name: str) -> xr.Dataset:
        """All leads as one dataset; StoreError when there is none."""
        if self._count == 0:
            raise StoreError("no step was given", where=name)
        if self._store is None:
            return xr.concat(
                self._held, _LEAD, data_vars="minimal", coords="minimal", compat="override",
                join="exact", combine_attrs="override",
            )  # fmt: skip
        self._store.finish()
        return xr.open_zarr(self._path, chunks=None, consolidated=True, decode_timedelta=True)
