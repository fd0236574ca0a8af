"""The two small files beside the weights: statistics of the channels, static fields."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.normalize import Normalization, normalization

PUBLISHED = "use the file that was published with the weights"


@dataclass(frozen=True)
class Statics:
    """Static fields `data` (longitude, latitude, static) float32 on the 1.5 degree grid."""

    data: NDArray[np.float32]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]


def read_arrays(
    path: Path, names: Sequence[str], *, prefix: str | None = None
) -> dict[str, NDArray[Any]]:
    """Arrays `names` of an npz file, and all whose name starts with `prefix`.

    One ModelError names all of `names` that are missing.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise ModelError(f"has no {', '.join(missing)}", where=str(path), remedy=PUBLISHED)
            more = [name for name in archive if prefix and name.startswith(prefix)]
            return {name: archive[name] for name in (*names, *more)}
    except FileNotFoundError:
        raise ModelError("no such file", where=str(path), remedy=PUBLISHED) from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"not readable as npz: {error}", where=str(path)) from error


def read_statistics(path: Path, config: ModelConfig) -> Normalization:
    """`state_mean` and `state_std` of the channels; ModelError names what is not usable."""
    arrays = read_arrays(path, ("state_mean", "state_std"))
    return normalization(arrays["state_mean"], arrays["state_std"], config.variables, str(path))


def read_statics(path: Path, config: ModelConfig) -> Statics:
    """`data`, `latitude`, `longitude`; one ModelError lists every fault."""
    arrays = read_arrays(path, ("data", "latitude", "longitude"))
    statics = Statics(
        arrays["data"].astype(np.float32, copy=False), arrays["latitude"], arrays["longitude"]
    )
    faults = static_faults(statics, config)
    if faults:
        raise ModelError("; ".join(faults), where=str(path), remedy=PUBLISHED)
    return statics


def static_faults(statics: Statics, config: ModelConfig) -> list[str]:
    """Every reason why the statics are not those of the model's grid; empty when they fit."""
    faults = _axis_faults(statics)
    expected = (LONGITUDE.size, LATITUDE.size, len(config.static_variables))
    if statics.data.shape != expected:
        faults.append(f"data has shape {statics.data.shape}, expected {expected}")
    elif not np.isfinite(statics.data).all():
        maps = np.moveaxis(statics.data, -1, 0)
        names = [
            name
            for name, values in zip(config.static_variables, maps, strict=True)
            if not np.isfinite(values).all()
        ]
        faults.append(f"values that are not finite in {', '.join(names)}")
    return faults


def _axis_faults(statics: Statics) -> list[str]:
    faults = []
    latitude, longitude = statics.latitude, statics.longitude
    if np.array_equal(latitude, LATITUDE[::-1]):
        faults.append("latitude runs north to south, expected south to north")
    elif not _same_axis(latitude, LATITUDE):
        faults.append("latitude is not -90 to 90 in steps of 1.5 degrees")
    if longitude.size and longitude.flat[0] != LONGITUDE[0]:
        faults.append(f"longitude starts at {longitude.flat[0]}, expected 0")
    elif not _same_axis(longitude, LONGITUDE):
        faults.append("longitude is not 0 to 358.5 in steps of 1.5 degrees")
    return faults


def _same_axis(found: NDArray[Any], expected: NDArray[np.float64]) -> bool:
    return found.shape == expected.shape and bool(np.allclose(found, expected, rtol=0, atol=1e-4))
