"""From fetched GRIB messages to one analysis on the model's grid."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ingest.decode import Field, read_messages
from ingest.fetch import DATA, STATICS
from ingest.index import STATIC_KEYS
from ingest.planes import RegridderCache, analysis_planes
from ingest.sources import ATTRIBUTION
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.schema import ANALYSIS, channels_to_dataset


def build_analysis(manifest: FetchManifest, directory: Path, *, step: int = 0) -> xr.Dataset:
    """The analysis in `directory` on the 1.5 degree grid: ANALYSIS schema, one time.

    `step` says that the files hold a forecast of so many hours; the time is the valid time.
    Attributes carry the provenance. Raises DataError for damaged, missing, doubled, foreign or
    NaN fields.
    """
    cycle = Cycle.parse(manifest.cycle)
    path = directory / DATA
    dataset = analysis_from_fields(
        read_messages(path, units=False), cycle.init_time + np.timedelta64(step, "h"), str(path)
    )
    return dataset.assign_attrs(_provenance(manifest, step))


def incoming_statics(directory: Path) -> dict[str, NDArray[np.floating]]:
    """Static fields that came with a fetched analysis, by the model's names; may be empty.

    (latitude, longitude) on the model's grid.
    """
    path = directory / STATICS
    names = {key: name for name, key in STATIC_KEYS.items()}
    regridders = RegridderCache()
    fields = read_messages(path) if path.exists() else ()
    return {names[field.header.key]: regridders.of(field)(field.values) for field in fields}


def _provenance(manifest: FetchManifest, step: int) -> dict[str, str | int]:
    record: dict[str, str | int] = {
        "source": manifest.source,
        "era": manifest.era,
        "cycle": manifest.cycle,
        "step": step,
        "data_url": manifest.data_url,
        "etag": manifest.etag or "",
        "last_modified": manifest.last_modified or "",
        "fetched_at": manifest.fetched_at.isoformat(),
        "first_seen": manifest.first_seen.isoformat() if manifest.first_seen else "",
        "grib_sha256": next(file.sha256 for file in manifest.files if file.name == DATA),
        "attribution": ATTRIBUTION,
    }
    return {key: value for key, value in record.items() if value != ""}


def analysis_from_fields(
    fields: Iterable[Field], valid_time: np.datetime64, where: str
) -> xr.Dataset:
    """One ANALYSIS dataset of `valid_time` from fields as they come; see `analysis_planes`."""
    planes = analysis_planes(fields, valid_time, where)
    dataset = channels_to_dataset(planes[np.newaxis], {"time": [valid_time]})
    return ANALYSIS.validate(dataset, where=where)
