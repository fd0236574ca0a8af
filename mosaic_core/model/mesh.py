"""Everything about places that the network uses, computed once and never learnt.

HEALPix pixels are in nested order, grid points longitude-major (point = lon * latitudes + lat).
All angles are float32 radians made from float32 degrees: the published neighbour tables come out
of exactly these values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import healpy
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import BallTree
from torch import Tensor

from mosaic_core.contract.errors import ModelError
from mosaic_core.model.config import LevelConfig, ModelConfig

STD_OFFSET = 1e-6  # added to a standard deviation before dividing by it

Radians = NDArray[np.float32]  # (places, 2): latitude, longitude


@dataclass(frozen=True)
class Neighbors:
    """For every target, `indices` (target, k) of the sources and `directions` (target, k, 3).

    A direction is the unit vector of xyz(target) - xyz(source); zero where the two coincide.
    """

    indices: Tensor
    directions: Tensor

    def to(self, device: torch.device) -> Neighbors:
        """The same tables on another device."""
        return Neighbors(self.indices.to(device), self.directions.to(device))


@dataclass(frozen=True)
class Rotation:
    """Rotary tables of one level, `cos` and `sin`, each (token, head_dim / 2) float32."""

    cos: Tensor
    sin: Tensor

    def to(self, device: torch.device) -> Rotation:
        """The same tables on another device."""
        return Rotation(self.cos.to(device), self.sin.to(device))


@dataclass(frozen=True)
class Geometry:
    """All tables of one network on one grid.

    `statics` (point, statics + 3), standardised; `to_healpix` and `to_grid`, the neighbours of
    the two interpolations; `child_positions`, for every change of level from fine to coarse, the
    standardised offsets (coarse token, 12) of the four children; `rotations`, one for every
    level from fine to coarse, None without rotary embedding.
    """

    longitudes: int
    latitudes: int
    statics: Tensor
    to_healpix: Neighbors
    to_grid: Neighbors
    child_positions: tuple[Tensor, ...]
    rotations: tuple[Rotation | None, ...]

    @property
    def points(self) -> int:
        """Points of the grid."""
        return self.longitudes * self.latitudes

    def to(self, device: torch.device) -> Geometry:
        """The same tables on another device."""
        return replace(
            self,
            statics=self.statics.to(device),
            to_healpix=self.to_healpix.to(device),
            to_grid=self.to_grid.to(device),
            child_positions=tuple(x.to(device) for x in self.child_positions),
            rotations=tuple(None if x is None else x.to(device) for x in self.rotations),
        )


def build_geometry(
    config: ModelConfig, longitude: ArrayLike, latitude: ArrayLike, static: ArrayLike
) -> Geometry:
    """The geometry on the grid of `longitude`, `latitude` (degrees), `static` (lon, lat, static).

    ModelError if the statics do not fit the grid or there are fewer places than neighbours.
    """
    grid = grid_radians(longitude, latitude)
    pixels = [healpix_radians(level.nside) for level in config.levels]
    k = config.k_neighbors
    if k > min(len(grid), len(pixels[0])):
        raise ModelError(
            f"k_neighbors is {k}, but there are {len(grid)} points and {len(pixels[0])} tokens",
            remedy="use a finer grid or fewer neighbours",
        )
    return Geometry(
        longitudes=np.size(longitude),
        latitudes=np.size(latitude),
        statics=static_features(np.asarray(static, np.float32), grid),
        to_healpix=find_neighbors(pixels[0], grid, k),
        to_grid=find_neighbors(grid, pixels[0], k),
        child_positions=tuple(child_positions(fine, coarse) for fine, coarse in pairwise(pixels)),
        rotations=tuple(
            rotation(level, places, config.rope_theta) if config.rope else None
            for level, places in zip(config.levels, pixels, strict=True)
        ),
    )


def grid_radians(longitude: ArrayLike, latitude: ArrayLike) -> Radians:
    """Places of a regular grid in degrees, longitude-major: (lon * lat, 2)."""
    lon, lat = np.meshgrid(
        np.asarray(longitude, np.float32), np.asarray(latitude, np.float32), indexing="ij"
    )
    return _radians(lat, lon)


def healpix_radians(nside: int) -> Radians:
    """Pixel centres in nested order, longitude in [0, 2 pi): (12 nside^2, 2)."""
    lon, lat = healpy.pix2ang(nside, np.arange(12 * nside**2), nest=True, lonlat=True)
    return _radians(lat.astype(np.float32), lon.astype(np.float32))


def _radians(latitude: NDArray[np.float32], longitude: NDArray[np.float32]) -> Radians:
    return np.deg2rad(np.stack([latitude.ravel(), longitude.ravel()], axis=-1))


def unit_vectors(places: Radians) -> Tensor:
    """xyz on the unit sphere, (places, 3)."""
    latitude, longitude = torch.from_numpy(places).unbind(-1)
    return torch.stack(
        [
            latitude.cos() * longitude.cos(),
            latitude.cos() * longitude.sin(),
            latitude.sin(),
        ],
        dim=-1,
    )


def find_neighbors(targets: Radians, sources: Radians, k: int) -> Neighbors:
    """The k sources nearest to every target by great circle.

    Many sources tie (whole rows near a pole). Which of them win is the choice of scikit-learn's
    tree on float32 values, and the published weights know that choice.
    """
    indices = BallTree(sources, metric="haversine").query(targets, k, return_distance=False)
    offsets = unit_vectors(targets)[:, None] - unit_vectors(sources)[indices]
    return Neighbors(torch.from_numpy(indices), torch.nn.functional.normalize(offsets, dim=-1))


def static_features(static: NDArray[np.float32], places: Radians) -> Tensor:
    """Statics (lon, lat, static) and xyz of every point, standardised over the points."""
    if static.ndim != 3 or static.shape[0] * static.shape[1] != len(places):
        raise ModelError(f"statics have shape {static.shape}, the grid has {len(places)} points")
    columns = torch.from_numpy(static.reshape(len(places), -1))
    return standardize(torch.cat([columns, unit_vectors(places)], dim=-1))


def child_positions(fine: Radians, coarse: Radians) -> Tensor:
    """Offsets of the children 4n..4n+3 from pixel n, (child, xyz) in 12 standardised columns."""
    offsets = torch.unflatten(unit_vectors(fine), 0, (-1, 4)) - unit_vectors(coarse)[:, None]
    return standardize(offsets.flatten(1))


def standardize(columns: Tensor) -> Tensor:
    """Each column less its mean, over its unbiased standard deviation + 1e-6."""
    return (columns - columns.mean(dim=0)) / (columns.std(dim=0) + STD_OFFSET)


def rotation(level: LevelConfig, places: Radians, theta: float) -> Rotation:
    """Rotary tables: the first head_dim / 4 pairs turn with longitude, the others with latitude.

    Pair j turns by radians x theta^(-2j / (head_dim / 2)).
    """
    half = level.head_dim // 2
    frequencies = theta ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)
    latitude, longitude = torch.from_numpy(places).unbind(-1)
    angles = torch.cat([axis[:, None] * frequencies for axis in (longitude, latitude)], dim=-1)
    return Rotation(angles.cos(), angles.sin())
