"""What an analysis is compared with: the model's statistics and its static fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS

Plane = NDArray[np.floating]
Planes = Mapping[str, Plane]
"""Channel name -> field (latitude 90S..90N, longitude 0..358.5), SI units."""


@dataclass(frozen=True)
class Reference:
    """Mean and standard deviation per channel (82,) of the fields the model was trained on,
    unweighted over the grid and in time, and two static fields (latitude, longitude): surface
    geopotential in m2 s-2, land fraction 0..1. Either pair may be None.
    """

    mean: NDArray[np.float64] | None = None
    std: NDArray[np.float64] | None = None
    surface_geopotential: Plane | None = None
    land: Plane | None = None

    @classmethod
    def load(cls, bundle: Path, variant: str) -> Reference:
        """From a weights bundle: norm_stats_{variant}.npz and static_vars.npz; else ModelError."""
        stats = _arrays(bundle / f"norm_stats_{variant}.npz", ("state_mean", "state_std"))
        (static,) = _arrays(bundle / "static_vars.npz", ("data",))
        shapes = {
            "state_mean": (stats[0].shape, (len(CHANNELS),)),
            "state_std": (stats[1].shape, (len(CHANNELS),)),
            "data": (static.shape, (LONGITUDE.size, LATITUDE.size, 3)),
        }
        for name, (shape, expected) in shapes.items():
            if shape != expected:
                raise ModelError(
                    f"{name} has shape {shape}, expected {expected}",
                    where=str(bundle),
                    remedy="`mosaic-ops weights fetch hres`, or name their folder: weights_dir",
                )
        return cls(stats[0], stats[1], static[:, :, 0].T, static[:, :, 1].T)


def _arrays(path: Path, names: tuple[str, ...]) -> tuple[NDArray[np.float64], ...]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return tuple(stored[name] for name in names)
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"cannot read {', '.join(names)} ({type(error).__name__}: {error})",
            where=str(path),
            remedy="`mosaic-ops weights fetch hres`, or name their folder: weights_dir",
        ) from None


def planes_of(dataset: xr.Dataset) -> Planes:
    """The channels that an analysis of one time (or none) holds, by name."""
    planes = {}
    for channel in CHANNELS:
        if channel.variable.name not in dataset:
            continue
        field = dataset[channel.variable.name].squeeze(drop=True)
        if channel.level_hpa is not None:
            if channel.level_hpa not in dataset["level"]:
                continue
            field = field.sel(level=channel.level_hpa) if "level" in field.dims else field
        planes[channel.name] = field.values
    return planes
