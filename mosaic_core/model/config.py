"""Sizes of a Mosaic network, read from JSON or built in, and refused when they do not fit.

Unset switches take the published values. A switch that asks for arithmetic this network does not
define (`qk_norm`, `no_compression`, ...) is refused by name, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pydantic

from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.variables import CHANNEL_NAMES, STATIC_VARIABLES

FLOAT32_EPSILON = 1.1920928955078125e-07
HOURS_PER_STRIDE = 6


class _Sizes(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LevelConfig(_Sizes):
    """One HEALPix level: its transformer blocks all have these sizes.

    `gqa_ratio` query heads share one key/value head. Blocks longer than the level, and more
    selected blocks than it has, mean all of it.
    """

    nside: pydantic.PositiveInt
    dim: pydantic.PositiveInt
    num_heads: pydantic.PositiveInt
    block_attn_size: pydantic.PositiveInt
    sparse_block_size: pydantic.PositiveInt
    sparse_block_count: pydantic.PositiveInt
    mlp_ratio: pydantic.PositiveFloat = 4.0
    gqa_ratio: pydantic.PositiveInt = 4

    @property
    def tokens(self) -> int:
        """Pixels of the level."""
        return 12 * self.nside**2

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads // self.gqa_ratio

    @property
    def hidden(self) -> int:
        """Width of the feed-forward layer; a fraction is cut off."""
        return int(self.dim * self.mlp_ratio)

    @property
    def local_block(self) -> int:
        """Tokens of a local run, at most the level."""
        return min(self.block_attn_size, self.tokens)

    @property
    def sparse_block(self) -> int:
        """Tokens of a sparse block, at most the level."""
        return min(self.sparse_block_size, self.tokens)

    @property
    def selected_blocks(self) -> int:
        """Key blocks that every query block selects, at most those there are."""
        return min(self.sparse_block_count, self.tokens // self.sparse_block)

    def faults(self, name: str, rope: bool) -> list[str]:
        """Every reason why these sizes cannot work, each naming the field."""
        checks = {
            f"nside {self.nside} is not a power of two": self.nside & (self.nside - 1) == 0,
            _indivisible("dim", self.dim, "num_heads", self.num_heads): (
                self.dim % self.num_heads == 0
            ),
            _indivisible("num_heads", self.num_heads, "gqa_ratio", self.gqa_ratio): (
                self.num_heads % self.gqa_ratio == 0
            ),
            f"head size {self.dim}/{self.num_heads} is not a multiple of 4, as rope needs": (
                not rope or self.dim % self.num_heads or self.head_dim % 4 == 0
            ),
            _indivisible("tokens", self.tokens, "block_attn_size", self.local_block): (
                self.tokens % self.local_block == 0
            ),
            _indivisible("tokens", self.tokens, "sparse_block_size", self.sparse_block): (
                self.tokens % self.sparse_block == 0
            ),
            f"mlp_ratio {self.mlp_ratio} leaves no hidden width": self.hidden > 0,
        }
        return [f"{name}: {fault}" for fault, holds in checks.items() if not holds]


class StageConfig(LevelConfig):
    """A level with blocks on the way down (`encoder_depth`) and up (`decoder_depth`)."""

    encoder_depth: pydantic.NonNegativeInt
    decoder_depth: pydantic.NonNegativeInt


class BottleneckConfig(LevelConfig):
    """The coarsest level."""

    depth: pydantic.NonNegativeInt


class ModelConfig(_Sizes):
    """All sizes of a network. `dim` and `num_heads` are those of the two interpolations.

    `step_stride` is the model step in units of 6 h; `norm_eps` the epsilon of every RMSNorm.
    """

    dim: pydantic.PositiveInt
    num_heads: pydantic.PositiveInt
    k_neighbors: pydantic.PositiveInt
    variables: tuple[str, ...]
    static_variables: tuple[str, ...]
    num_history_steps: pydantic.PositiveInt
    step_stride: pydantic.PositiveInt
    stages: tuple[StageConfig, ...]
    bottleneck: BottleneckConfig
    noise_dim: pydantic.PositiveInt = 32
    rope: bool = True
    rope_theta: pydantic.PositiveFloat = 10000.0
    norm_eps: pydantic.PositiveFloat = FLOAT32_EPSILON
    qk_norm: bool = False
    no_compression: bool = False
    rmsnorm_elementwise_affine: bool = False
    sparse_every: int = 1
    qkv_compress_ratio: float = 1
    ortho_init: bool = False  # how the weights were drawn before training: changes nothing here

    @property
    def features(self) -> int:
        """Inputs per point: history, statics, xyz of the point, 4 time features."""
        history = self.num_history_steps * len(self.variables)
        return history + len(self.static_variables) + 3 + 4

    @property
    def step_hours(self) -> int:
        """Length of a step, and spacing of the history."""
        return HOURS_PER_STRIDE * self.step_stride

    @property
    def levels(self) -> tuple[LevelConfig, ...]:
        """Stages from fine to coarse, then the bottleneck."""
        return (*self.stages, self.bottleneck)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        faults = [*self._unsupported(), *self._misfits()]
        for number, stage in enumerate(self.stages):
            faults += stage.faults(f"stages[{number}]", self.rope)
        faults += self.bottleneck.faults("bottleneck", self.rope)
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _unsupported(self) -> list[str]:
        defined = {
            "qk_norm": False,
            "no_compression": False,
            "rmsnorm_elementwise_affine": False,
            "sparse_every": 1,
            "qkv_compress_ratio": 1,
        }
        return [
            f"{flag} = {getattr(self, flag)} is not supported (only {value})"
            for flag, value in defined.items()
            if getattr(self, flag) != value
        ]

    def _misfits(self) -> list[str]:
        nsides = [level.nside for level in self.levels]
        halves = all(fine == 2 * coarse for fine, coarse in pairwise(nsides))
        checks = {
            _indivisible("dim", self.dim, "num_heads", self.num_heads): (
                self.dim % self.num_heads == 0
            ),
            f"dim {self.dim} is not that of the finest level, {self.levels[0].dim}": (
                self.dim == self.levels[0].dim
            ),
            f"nside must halve from level to level, found {nsides}": halves,
            "variables is empty or names one twice": _distinct(self.variables),
            "static_variables names one twice": (
                not self.static_variables or _distinct(self.static_variables)
            ),
        }
        return [fault for fault, holds in checks.items() if not holds]


def _indivisible(name: str, value: int, by: str, divisor: int) -> str:
    return f"{name} {value} is not a multiple of {by} {divisor}"


def _distinct(names: tuple[str, ...]) -> bool:
    return 0 < len(names) == len(set(names))


def parse_config(values: Mapping[str, Any], where: str) -> ModelConfig:
    """The configuration in `values`; ModelError lists every key at fault, `where` it was."""
    try:
        return ModelConfig.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise ModelError(
            "; ".join(_describe(fault) for fault in error.errors()),
            where=where,
            remedy="correct the configuration, or use one this version supports",
        ) from error


def read_config(path: Path) -> ModelConfig:
    """The configuration in a JSON file; ModelError if it is missing, no JSON, or unusable."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("no such file", where=str(path), remedy="check the path") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise ModelError("the configuration is not a JSON object", where=str(path))
    return parse_config(values, str(path))


def _describe(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def builtin_config(variant: str) -> ModelConfig:
    """The configuration of `era5`, `hres` (published) or `mini` (demo); ModelError otherwise."""
    if variant not in BUILTIN:
        raise ModelError(
            f"no built-in configuration {variant!r}", remedy=f"choose one of {', '.join(BUILTIN)}"
        )
    return BUILTIN[variant]


def _published(k_neighbors: int, num_history_steps: int, step_stride: int) -> ModelConfig:
    blocks: dict[str, Any] = {"block_attn_size": 1024, "sparse_block_size": 128}
    depths: dict[str, Any] = {"encoder_depth": 4, "decoder_depth": 2}
    return ModelConfig(
        dim=768,
        num_heads=12,
        k_neighbors=k_neighbors,
        variables=CHANNEL_NAMES,
        static_variables=STATIC_VARIABLES,
        num_history_steps=num_history_steps,
        step_stride=step_stride,
        stages=(
            StageConfig(nside=64, dim=768, num_heads=12, sparse_block_count=24, **blocks, **depths),
            StageConfig(
                nside=32, dim=1024, num_heads=16, sparse_block_count=12, **blocks, **depths
            ),
        ),
        bottleneck=BottleneckConfig(
            nside=16, dim=1280, num_heads=20, sparse_block_count=4, depth=2, **blocks
        ),
    )


def _mini() -> ModelConfig:
    """Small enough for 8 members and 8 steps within a minute on two CPU cores."""
    blocks: dict[str, Any] = {"num_heads": 8, "block_attn_size": 64, "sparse_block_size": 16}
    depths: dict[str, Any] = {"mlp_ratio": 2.0, "encoder_depth": 1, "decoder_depth": 1}
    return ModelConfig(
        dim=64,
        num_heads=4,
        k_neighbors=8,
        variables=CHANNEL_NAMES,
        static_variables=STATIC_VARIABLES,
        num_history_steps=4,
        step_stride=1,
        stages=(
            StageConfig(nside=16, dim=64, sparse_block_count=6, **blocks, **depths),
            StageConfig(nside=8, dim=96, sparse_block_count=4, **blocks, **depths),
        ),
        bottleneck=BottleneckConfig(
            nside=4, dim=128, sparse_block_count=3, mlp_ratio=2.0, depth=1, **blocks
        ),
    )


BUILTIN = {
    "era5": _published(k_neighbors=24, num_history_steps=2, step_stride=4),
    "hres": _published(k_neighbors=20, num_history_steps=4, step_stride=1),
    "mini": _mini(),
}
