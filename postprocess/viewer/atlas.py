"""Headline fields of a run as pictures that a browser can read values from.

Each picture is one field over all leads, 8-bit grey, lossless: `value = offset + scale * grey`,
grey 0 means missing. Leads lie one below the other, each 121 rows from north to south of 240
columns from 0 to 358.5 degrees east. `atlas.json` says which, with units and the two numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from mosaic_core.contract.files import write_atomic, write_json_atomic

FOLDER = "atlas"
FIELDS: tuple[tuple[str, int | None], ...] = (
    ("mean_sea_level_pressure", None),
    ("geopotential", 500),
    ("temperature", 850),
    ("2m_temperature", None),
    ("10m_wind_speed", None),
    ("wind_speed", 200),
    ("specific_humidity", 700),
)
STATISTICS = ("mean", "std")
_GREYS = 254


def write_atlas(ensemble: xr.Dataset, folder: Path) -> None:
    """Pictures of FIELDS and STATISTICS, and `atlas.json`, in the new folder `folder`/atlas.

    `ensemble` as the ensemble product stores it: `<variable>_<statistic>` (lead_time, [level,]
    latitude, longitude). Fields that it does not hold are left out.
    """
    one = ensemble.isel(init_time=0) if "init_time" in ensemble.dims else ensemble
    hours = one["lead_time"].values / np.timedelta64(1, "h")
    entries = list(_written(one, folder / FOLDER))
    write_json_atomic(
        folder / FOLDER / "atlas.json",
        {"schema_version": 1, "lead_hours": hours.astype(int).tolist(), "fields": entries},
    )


def _written(one: xr.Dataset, folder: Path) -> Iterator[dict[str, Any]]:
    for variable, level in FIELDS:
        for statistic in STATISTICS:
            field = _field(one, f"{variable}_{statistic}", level)
            if field is None:
                continue
            grey, offset, scale = as_grey(field.transpose("lead_time", ...).values[:, ::-1])
            name = f"{variable}{'' if level is None else f'_{level}'}_{statistic}.webp"
            write_atomic(folder / name, _picture(grey))
            yield {
                "variable": variable,
                "level_hpa": level,
                "statistic": statistic,
                "units": str(field.attrs.get("units", "")),
                "file": name,
                "offset": offset,
                "scale": scale,
            }


def _field(one: xr.Dataset, name: str, level: int | None) -> xr.DataArray | None:
    if name not in one:
        return None
    if level is None:
        return one[name]
    return one[name].sel(level=level) if level in one["level"].values else None


def as_grey(values: NDArray[np.floating]) -> tuple[NDArray[np.uint8], float, float]:
    """(..., row, column) as grey 1..255, 0 where not finite; with offset and scale of the values.

    The error is at most half of `scale`, which is the range of the values over 254.
    """
    finite = np.isfinite(values)
    known = values[finite] if finite.any() else np.zeros(1)
    low, high = float(known.min()), float(known.max())
    scale = (high - low) / _GREYS or 1.0
    offset = low - scale
    levels = np.rint((np.where(finite, values, low) - offset) / scale).clip(1, 255)
    return np.where(finite, levels, 0).astype(np.uint8), offset, scale


def _picture(grey: NDArray[np.uint8]) -> bytes:
    """Leads stacked below each other, as lossless WebP."""
    content = io.BytesIO()
    stacked = Image.fromarray(grey.reshape(-1, grey.shape[-1])).convert("RGB")
    stacked.save(content, "WEBP", lossless=True, method=2)
    return content.getvalue()
