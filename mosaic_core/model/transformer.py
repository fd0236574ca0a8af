"""Transformer blocks on one HEALPix level.

x += attention(norm(x)); x += feed_forward(norm(x), z).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mosaic_core.attention.api import block_sparse_attention
from mosaic_core.model.config import LevelConfig
from mosaic_core.model.layers import linear, rms_norm
from mosaic_core.model.mesh import Rotation

BRANCHES = 3  # local, compressed, selected


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding of (member, token, head, head_dim): each adjacent pair by its angle."""
    wide = torch.promote_types(x.dtype, torch.float32)
    cos, sin = rotation.cos[:, None].to(wide), rotation.sin[:, None].to(wide)
    even, odd = torch.unflatten(x.to(wide), -1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Block-sparse attention with its projections."""

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        self.level = level
        kv_dim = level.kv_heads * level.head_dim
        self.to_q = linear(level.dim, level.dim)
        self.to_k = linear(level.dim, kv_dim)
        self.to_v = linear(level.dim, kv_dim)
        self.to_o = linear(level.dim, level.dim)
        self.to_strategy_combine_mlp = linear(level.dim, BRANCHES * level.num_heads)

    def forward(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """(member, token, dim) -> (member, token, dim)."""
        level = self.level
        q, k, v = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = block_sparse_attention(
            q,
            k,
            v,
            torch.unflatten(self.to_strategy_combine_mlp(x), -1, (level.num_heads, BRANCHES)),
            local_block=level.local_block,
            sparse_block=level.sparse_block,
            selected_blocks=level.selected_blocks,
        )
        return self.to_o(mixed.flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.level.head_dim))


class FeedForward(nn.Module):
    """SwiGLU whose gate is shifted by the member's noise."""

    def __init__(self, level: LevelConfig, noise_dim: int) -> None:
        super().__init__()
        self.w13 = linear(level.dim, 2 * level.hidden)
        self.w2 = linear(level.hidden, level.dim)
        self.noise_bias = linear(noise_dim, level.hidden)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(member, token, dim), z (member, noise_dim) -> (member, token, dim)."""
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(functional.silu(gate + self.noise_bias(z)[:, None]) * value)


class Block(nn.Module):
    """Attention and feed-forward, each on the normed residual stream."""

    def __init__(self, level: LevelConfig, noise_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.attention = Attention(level)
        self.ffn = FeedForward(level, noise_dim)

    def forward(self, x: Tensor, z: Tensor, rotation: Rotation | None) -> Tensor:
        """(member, token, dim) -> (member, token, dim)."""
        x = x + self.attention(rms_norm(x, self.eps), rotation)
        return x + self.ffn(rms_norm(x, self.eps), z)


class Stage(nn.Module):
    """`depth` blocks on one level."""

    def __init__(self, level: LevelConfig, depth: int, noise_dim: int, eps: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(level, noise_dim, eps) for _ in range(depth))

    def forward(self, x: Tensor, z: Tensor, rotation: Rotation | None) -> Tensor:
        """(member, token, dim) -> (member, token, dim)."""
        for block in self.blocks:
            x = block(x, z, rotation)
        return x
