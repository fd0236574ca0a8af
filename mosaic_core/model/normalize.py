"""Normalisation of the states, per channel, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mosaic_core.contract.errors import ModelError


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of every channel in SI units, each (channel,) float32."""

    mean: Tensor
    std: Tensor

    def normalize(self, physical: Tensor) -> Tensor:
        """(..., channel) in SI units -> standardised."""
        return (physical - self.mean) / self.std

    def denormalize(self, state: Tensor) -> Tensor:
        """(..., channel) standardised -> SI units."""
        return state * self.std + self.mean

    def to(self, device: torch.device) -> Normalization:
        """The same statistics on another device."""
        return Normalization(self.mean.to(device), self.std.to(device))


def normalization(
    mean: ArrayLike, std: ArrayLike, channels: tuple[str, ...], where: str
) -> Normalization:
    """Statistics in the order of `channels`; ModelError names every channel that has none."""
    means, stds = (np.asarray(values, np.float32) for values in (mean, std))
    for name, values in (("state_mean", means), ("state_std", stds)):
        if values.shape != (len(channels),):
            raise ModelError(
                f"{name} has shape {values.shape}, expected ({len(channels)},)",
                where=where,
                remedy="use the statistics that were published with the weights",
            )
    usable = np.isfinite(means) & np.isfinite(stds) & (stds > 0)
    if not usable.all():
        faulty = [channel for channel, good in zip(channels, usable, strict=True) if not good]
        raise ModelError(
            f"mean not finite or standard deviation not positive for {', '.join(faulty)}",
            where=where,
            remedy="use the statistics that were published with the weights",
        )
    return Normalization(torch.from_numpy(means), torch.from_numpy(stds))
