"""The parameters as the fast engine wants them: merged, folded, narrow, on the device once.

Widths are padded to whole cache lines with zero rows, so that matrix products and kernels load
16 bytes at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from mosaic_core.attention.kernels.eight_bit import quantized_weight
from mosaic_core.attention.kernels.feedforward import interleave
from mosaic_core.attention.kernels.interpolation import fold_keys
from mosaic_core.model.config import LevelConfig
from mosaic_core.model.layers import Downsample, Interpolation, Upsample
from mosaic_core.model.mesh import Geometry, Neighbors
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.transformer import Block, Stage

LINE = 64  # elements; 128 bytes in a 16-bit type


@dataclass(frozen=True)
class BlockWeights:
    """One transformer block: `projection` = [q; k; v; gates; padding], `w13` interleaved,
    `bias` its columns of the noise. In 8 bits w13 and w2 are int8 with the scale of each row."""

    projection: Tensor
    out: Tensor
    w13: Tensor
    w2: Tensor
    bias: slice
    w13_scale: Tensor | None = None
    w2_scale: Tensor | None = None

    def in_eight_bits(self) -> BlockWeights:
        """The same block with an int8 feed-forward; the projections of attention stay."""
        w13, w13_scale = quantized_weight(self.w13)
        w2, w2_scale = quantized_weight(self.w2)
        return replace(self, w13=w13, w13_scale=w13_scale, w2=w2, w2_scale=w2_scale)


@dataclass(frozen=True)
class LevelWeights:
    """The blocks of one stage and its rotary tables (cos, sin)."""

    level: LevelConfig
    blocks: tuple[BlockWeights, ...]
    rotation: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class InterpolationWeights:
    """`projection` = [values; folded keys; padding], and the neighbours of every target."""

    heads: int
    projection: Tensor
    out: Tensor
    indices: Tensor
    directions: Tensor


@dataclass(frozen=True)
class Change:
    """A change of level: its projection and the rows its positions add, for every coarse token."""

    projection: Tensor
    positions: Tensor


@dataclass(frozen=True)
class FastWeights:
    """Everything constant. `noise` (all hidden widths, noise_dim) is float32: the biases of all
    blocks from the standard normal vector in one product."""

    preprocess: tuple[Tensor, ...]
    to_healpix: InterpolationWeights
    encoders: tuple[LevelWeights, ...]
    downs: tuple[Change, ...]
    bottleneck: LevelWeights
    ups: tuple[Change, ...]
    decoders: tuple[LevelWeights, ...]
    to_grid: InterpolationWeights
    postprocess: tuple[Tensor, ...]
    noise: Tensor


class _Builder:
    """Converts parameters to the device and type, and collects the noise biases in order."""

    def __init__(
        self, geometry: Geometry, device: torch.device, dtype: torch.dtype, eight_bit: bool
    ) -> None:
        self.geometry = geometry
        self.device = device
        self.dtype = dtype
        self.eight_bit = eight_bit
        self.biases: list[Tensor] = []

    def narrow(self, *rows: Tensor) -> Tensor:
        """The tensors one below another, padded to a multiple of LINE rows."""
        merged = torch.cat([part.detach() for part in rows])
        missing = -len(merged) % LINE
        padded = nn.functional.pad(merged, (0, 0, 0, missing)) if len(rows) > 1 else merged
        return padded.to(self.device, self.dtype).contiguous()

    def block(self, block: Block) -> BlockWeights:
        attention, ffn = block.attention, block.ffn
        start = sum(len(bias) for bias in self.biases)
        self.biases.append(ffn.noise_bias.weight.detach())
        weights = BlockWeights(
            projection=self.narrow(
                attention.to_q.weight,
                attention.to_k.weight,
                attention.to_v.weight,
                attention.to_strategy_combine_mlp.weight,
            ),
            out=self.narrow(attention.to_o.weight),
            w13=self.narrow(interleave(ffn.w13.weight.detach())),
            w2=self.narrow(ffn.w2.weight),
            bias=slice(start, start + len(self.biases[-1])),
        )
        return weights.in_eight_bits() if self.eight_bit else weights

    def level(self, stage: nn.Module, level: LevelConfig, depth: int) -> LevelWeights:
        rotation = self.geometry.rotations[depth]
        tables = None
        if rotation is not None:
            tables = (rotation.cos.to(self.device), rotation.sin.to(self.device))
        members = cast("Stage", stage).blocks
        blocks = tuple(self.block(cast("Block", block)) for block in members)
        return LevelWeights(level, blocks, tables)

    def interpolation(self, layer: Interpolation, neighbors: Neighbors) -> InterpolationWeights:
        keys, values = layer.to_kv.weight.detach().chunk(2)
        folded = fold_keys(layer.to_q.weight.detach(), keys, layer.num_heads)
        return InterpolationWeights(
            heads=layer.num_heads,
            projection=self.narrow(values, folded),
            out=self.narrow(layer.to_o.weight),
            indices=neighbors.indices.to(self.device, torch.int32),
            directions=neighbors.directions.to(self.device, torch.float32).contiguous(),
        )

    def change(self, layer: nn.Module, depth: int) -> Change:
        projections = cast("Downsample | Upsample", layer)
        weight = projections.proj_pos.weight.detach().float()
        positions = self.geometry.child_positions[depth].to(weight.device) @ weight.T
        return Change(self.narrow(projections.proj_x.weight), positions.to(self.device, self.dtype))

    def sequence(self, layers: nn.Sequential, *places: int) -> tuple[Tensor, ...]:
        """The weights of the linear maps at `places`."""
        return tuple(self.narrow(cast("nn.Linear", layers[place]).weight) for place in places)


@torch.no_grad()
def fast_weights(
    model: Mosaic, device: torch.device, dtype: torch.dtype, *, eight_bit: bool = False
) -> FastWeights:
    """The parameters and geometry of `model` for an engine on `device`, matrices in `dtype`.

    With `eight_bit`, w13 and w2 of the blocks are int8.
    """
    config, geometry = model.config, model.geometry
    builder = _Builder(geometry, device, dtype, eight_bit)
    depths = range(len(config.stages))
    first, second = builder.sequence(model.preprocess, 0, 3)
    encoders = tuple(builder.level(model.encoder_stages[d], config.stages[d], d) for d in depths)
    bottleneck = builder.level(model.bottleneck, config.bottleneck, len(depths))
    upward = list(enumerate(reversed(depths)))
    decoders = tuple(builder.level(model.decoder_stages[i], config.stages[d], d) for i, d in upward)
    to_noise = model.noise_generator.to_noise.weight.double()
    noise = torch.cat(builder.biases).double() @ to_noise
    return FastWeights(
        preprocess=(nn.functional.pad(first, (0, -config.features % LINE)), second),
        to_healpix=builder.interpolation(model.interp_to_hp, geometry.to_healpix),
        encoders=encoders,
        downs=tuple(builder.change(model.downsample_layers[d], d) for d in depths),
        bottleneck=bottleneck,
        ups=tuple(builder.change(model.upsample_layers[i], d) for i, d in upward),
        decoders=decoders,
        to_grid=builder.interpolation(model.interp_to_ll, geometry.to_grid),
        postprocess=builder.sequence(model.postprocess, 1, 3),
        noise=noise.to(device, torch.float32),
    )
