"""The Mosaic network: a history of states on the grid to the state one step later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from mosaic_core.model.config import ModelConfig
from mosaic_core.model.layers import (
    Downsample,
    Interpolation,
    NoiseGenerator,
    RMSNorm,
    Upsample,
    linear,
)
from mosaic_core.model.mesh import Geometry
from mosaic_core.model.normalize import Normalization
from mosaic_core.model.transformer import Stage


@dataclass(frozen=True)
class Provenance:
    """Where the parameters came from: file digests, licence, and whether they were trained.

    `trained` is None where nothing records it.
    """

    variant: str
    sha256: Mapping[str, str]
    trained: bool | None
    licence: str
    source: str


class Mosaic(nn.Module):
    """The network with its geometry and statistics.

    Its state_dict holds the parameters alone, under the names of the published checkpoints less
    their `model.` prefix. Geometry and statistics stay float32 and follow the parameters from
    device to device. On the meta device, to look at shapes only, both may be None.
    """

    batch_size = 1  # members of a step unless told: more are no quicker on a CPU

    def __init__(
        self,
        config: ModelConfig,
        geometry: Geometry | None = None,
        normalization: Normalization | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.provenance = provenance
        self._geometry = geometry
        self._normalization = normalization
        dim, eps, noise = config.dim, config.norm_eps, config.noise_dim
        self.noise_generator = NoiseGenerator(noise)
        self.preprocess = nn.Sequential(
            linear(config.features, dim), RMSNorm(eps), nn.SiLU(), linear(dim, dim), RMSNorm(eps)
        )
        self.interp_to_hp = Interpolation(dim, config.num_heads, eps)
        self.interp_to_ll = Interpolation(dim, config.num_heads, eps)
        self.encoder_stages = nn.ModuleList(
            Stage(stage, stage.encoder_depth, noise, eps) for stage in config.stages
        )
        dims = [level.dim for level in config.levels]
        steps = list(pairwise(dims))
        self.downsample_layers = nn.ModuleList(Downsample(*step, eps) for step in steps)
        self.bottleneck = Stage(config.bottleneck, config.bottleneck.depth, noise, eps)
        self.upsample_layers = nn.ModuleList(
            Upsample(coarse, fine, eps) for fine, coarse in reversed(steps)
        )
        self.decoder_stages = nn.ModuleList(
            Stage(stage, stage.decoder_depth, noise, eps) for stage in reversed(config.stages)
        )
        self.norm_before_interp_ll = RMSNorm(eps)
        self.postprocess = nn.Sequential(
            RMSNorm(eps), linear(dim, dim), nn.SiLU(), linear(dim, len(config.variables))
        )

    @property
    def geometry(self) -> Geometry:
        """The tables of places, on the model's device."""
        assert self._geometry is not None, "built without a geometry, for its shapes only"
        return self._geometry

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of the channels, on the model's device."""
        assert self._normalization is not None, "built without statistics, for its shapes only"
        return self._normalization

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters and activations."""
        return next(self.parameters()).dtype

    def step(self, history: Tensor, time_features: Tensor, noise: Tensor) -> Tensor:
        """One step ahead, in normalised units.

        history (member, time, point, channel), oldest state first; time_features (4,) of the
        newest state; noise (member, noise_dim), standard normal -> (member, point, channel).
        """
        features = self.input_features(history, time_features)
        z = self.noise_generator(noise.to(self.dtype))
        return self(features, z).to(history.dtype)

    def input_features(self, history: Tensor, time_features: Tensor) -> Tensor:
        """Inputs of every point, (member, point, feature): the states, statics, time."""
        members, _, points, _ = history.shape
        states = history.transpose(1, 2).flatten(2)
        statics = self.geometry.statics.expand(members, -1, -1)
        times = time_features.expand(members, points, -1)
        return torch.cat([part.to(self.dtype) for part in (states, statics, times)], dim=-1)

    def forward(self, features: Tensor, z: Tensor) -> Tensor:
        """(member, point, feature), z (member, noise_dim) -> (member, point, channel)."""
        geometry = self.geometry
        x = self.interp_to_hp(self.preprocess(features), geometry.to_healpix)
        x = self._levels(x, z)
        x = self.interp_to_ll(self.norm_before_interp_ll(x), geometry.to_grid)
        result: Tensor = self.postprocess(x)
        return result

    def _levels(self, x: Tensor, z: Tensor) -> Tensor:
        *rotations, coarsest = self.geometry.rotations
        positions = self.geometry.child_positions
        skips = []
        down = zip(self.encoder_stages, self.downsample_layers, rotations, positions, strict=True)
        for stage, downsample, rotation, offsets in down:
            skips.append(stage(x, z, rotation))
            x = downsample(skips[-1], offsets)
        x = self.bottleneck(x, z, coarsest)
        up = zip(self.upsample_layers, self.decoder_stages, strict=True)
        for (upsample, stage), rotation, offsets in zip(
            up, reversed(rotations), reversed(positions), strict=True
        ):
            x = stage(upsample(x, skips.pop(), offsets), z, rotation)
        return x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._geometry is not None:
            self._geometry = self._geometry.to(self.device)
        if self._normalization is not None:
            self._normalization = self._normalization.to(self.device)
        return self
