"""Layers around the transformer: norm, projections, the two interpolations, change of level.

Activations are (member, place, channel); no layer has a bias. Norms and softmax run in float32
at least, whatever the type of the activations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mosaic_core.attention.reference import slices
from mosaic_core.model.mesh import Neighbors


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map without bias."""
    return nn.Linear(inputs, outputs, bias=False)


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, in float32 at least, in the type of x."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return functional.rms_norm(wide, x.shape[-1:], eps=eps).to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` as a module; it has no weight."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., channel) -> the same shape."""
        return rms_norm(x, self.eps)


class Interpolation(nn.Module):
    """Attention of every target place on its k nearest source places.

    Queries come from the directions to the neighbours alone, one for each neighbour.
    """

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.eps = eps
        self.to_q = linear(3, dim)
        self.to_kv = linear(dim, 2 * dim)
        self.to_o = linear(dim, dim)

    def forward(self, x: Tensor, neighbors: Neighbors) -> Tensor:
        """(member, source, dim) -> (member, target, dim)."""
        k, v = self.to_kv(rms_norm(x, self.eps)).chunk(2, dim=-1)
        targets, count = neighbors.indices.shape
        parts = [
            self._gather(k, v, neighbors.indices[some], neighbors.directions[some])
            for some in slices(targets, 2 * count * k[:, 0].numel())
        ]
        return self.to_o(torch.cat(parts, dim=1))

    def _gather(self, k: Tensor, v: Tensor, indices: Tensor, directions: Tensor) -> Tensor:
        q = self._heads(self.to_q(directions.to(k.dtype)))
        keys, values = self._heads(k[:, indices]), self._heads(v[:, indices])
        wide = torch.promote_types(k.dtype, torch.float32)
        scores = (q * keys).sum(dim=-1, dtype=wide) * q.shape[-1] ** -0.5
        weights = scores.softmax(dim=-2).to(k.dtype)  # over the neighbours
        return (weights[..., None] * values).sum(dim=-3).flatten(-2)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.num_heads, -1))


class Downsample(nn.Module):
    """Four children to their parent; the norm's output is the new residual stream."""

    def __init__(self, fine_dim: int, coarse_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.proj_x = linear(4 * fine_dim, coarse_dim)
        self.proj_pos = linear(12, coarse_dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(member, 4 n, fine_dim), child positions (n, 12) -> (member, n, coarse_dim)."""
        children = torch.unflatten(x, 1, (-1, 4)).flatten(2)
        return rms_norm(self.proj_x(children) + self.proj_pos(positions.to(x.dtype)), self.eps)


class Upsample(nn.Module):
    """A parent to its four children, added to the skip of the way down, then normed."""

    def __init__(self, coarse_dim: int, fine_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.proj_x = linear(coarse_dim, 4 * fine_dim)
        self.proj_pos = linear(12, 4 * fine_dim)

    def forward(self, x: Tensor, skip: Tensor, positions: Tensor) -> Tensor:
        """(member, n, coarse_dim), skip (member, 4 n, fine_dim) -> (member, 4 n, fine_dim)."""
        parents = self.proj_x(x) + self.proj_pos(positions.to(x.dtype))
        return rms_norm(torch.unflatten(parents, 2, (4, -1)).flatten(1, 2) + skip, self.eps)


class NoiseGenerator(nn.Module):
    """Turns a member's standard normal vector into the z that every feed-forward layer reads."""

    def __init__(self, noise_dim: int) -> None:
        super().__init__()
        self.to_noise = linear(noise_dim, noise_dim)

    def forward(self, noise: Tensor) -> Tensor:
        """(member, noise_dim) -> (member, noise_dim)."""
        return self.to_noise(noise)
