"""Arithmetic of one member and step: what the speed of a rollout is measured against."""

from __future__ import annotations

from mosaic_core.model.config import LevelConfig, ModelConfig


def step_flops(config: ModelConfig, points: int) -> tuple[int, int]:
    """Floating-point operations of one member and step: (all, attention alone).

    A multiplication and its addition count as two. Attention counts the products of the local
    and the selected branch; norms, softmax and the compressed branch are not counted.
    """
    depths = [stage.encoder_depth + stage.decoder_depth for stage in config.stages]
    depths.append(config.bottleneck.depth)
    blocks = sum(
        depth * level_linear(level) for depth, level in zip(depths, config.levels, strict=True)
    )
    attention = sum(
        depth * level_attention(level) for depth, level in zip(depths, config.levels, strict=True)
    )
    return blocks + attention + _around(config, points), attention


def level_linear(level: LevelConfig) -> int:
    """The linear maps of one block."""
    kv_dim = level.kv_heads * level.head_dim
    columns = 2 * level.dim + 2 * kv_dim + 3 * level.num_heads + 3 * level.hidden
    return 2 * level.tokens * level.dim * columns


def level_attention(level: LevelConfig) -> int:
    """Scores and weighted sums of the local and the selected branch of one block."""
    keys = level.local_block + level.selected_blocks * level.sparse_block
    return 4 * level.tokens * level.dim * keys


def _around(config: ModelConfig, points: int) -> int:
    """Everything outside the blocks, with keys folded to three numbers per head."""
    dim, finest = config.dim, config.levels[0].tokens
    folded = dim + 3 * config.num_heads
    grid = points * dim * (config.features + dim + folded + dim + dim + len(config.variables))
    healpix = finest * dim * (dim + folded)
    changes = sum(
        8 * coarse.tokens * fine.dim * coarse.dim * 2
        for fine, coarse in zip(config.levels, config.levels[1:], strict=False)
    )
    return 2 * (grid + healpix) + changes
