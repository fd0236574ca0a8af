"""The network at the speed of a GPU: `FastEngine.step` computes what `Mosaic.step` computes.

Activations are (member x token, channel) rows in a 16-bit type; sums, norms, softmax and the
state run in float32. Matrix products are the library's except where an epilogue saves a pass over
memory. A batch always has the same shape, and one recorded CUDA graph replays a step of it; a
member's bits do not depend on the size of its batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mosaic_core.attention.kernels.attention import Scratch, Sizes, attend, value_type
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.eight_bit import hidden_groups, quantized
from mosaic_core.attention.kernels.feedforward import swiglu
from mosaic_core.attention.kernels.interpolation import interpolate
from mosaic_core.attention.kernels.launching import only_compiling
from mosaic_core.attention.kernels.norms import normed_sum, row_scale, scaled_silu
from mosaic_core.attention.kernels.products import product, wide_product
from mosaic_core.attention.kernels.projection import project
from mosaic_core.attention.kernels.residual import add_product
from mosaic_core.attention.kernels.tuning import ensure_tuned
from mosaic_core.contract.errors import ModelError
from mosaic_core.model.config import LevelConfig, ModelConfig
from mosaic_core.model.fast_weights import (
    BlockWeights,
    Change,
    InterpolationWeights,
    LevelWeights,
    fast_weights,
)
from mosaic_core.model.mosaic import Mosaic

logger = logging.getLogger(__name__)

DEFAULT_BATCH = 4  # members: 3 % faster than 2 for 1.5 GiB more; 8 are no faster
PRECISIONS = ("float16", "int8")  # of matrices; in int8 two maps of every block, the rest float16
MINIMUM_CAPABILITY = (8, 0)  # 16-bit matrix products with asynchronous copies
WARM_UP_STEPS = 2  # the first compiles kernels, the second settles the allocator


class FastEngine:
    """A step of `batch_size` members on `device`, with the parameters of `model`.

    The model may live anywhere and is not kept. `dtype` is that of matrices and activations; with
    `eight_bit` both maps of the feed-forward run in int8.
    """

    def __init__(
        self,
        model: Mosaic,
        device: torch.device | str,
        *,
        batch_size: int | None = None,
        dtype: torch.dtype = torch.float16,
        eight_bit: bool = False,
    ) -> None:
        self.config = model.config
        self.device = torch.device(device)
        self.dtype = dtype
        self.eight_bit = eight_bit
        self.points = model.geometry.points
        self.batch_size = fitting_batch(self.config, self.points, self.device, batch_size)
        self.weights = fast_weights(model, self.device, dtype, eight_bit=eight_bit)
        self.features = self._blank_features(model)
        self.noise = torch.zeros(self.batch_size, self.config.noise_dim, device=self.device)
        self.result: Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def _blank_features(self, model: Mosaic) -> Tensor:
        """Input rows with the statics in place, (batch, point, padded features)."""
        width = self.weights.preprocess[0].shape[1]
        rows = torch.zeros(
            self.batch_size, self.points, width, dtype=self.dtype, device=self.device
        )
        statics = model.geometry.statics.to(self.device)
        rows[:, :, self.history_width : self.history_width + statics.shape[1]] = statics
        return rows

    @property
    def precision(self) -> str:
        """Type of the arithmetic: float32, float16, or int8 where some of it is."""
        return "int8" if self.eight_bit else str(self.dtype).removeprefix("torch.")

    @property
    def history_width(self) -> int:
        """Columns of the input that hold the states."""
        return self.config.num_history_steps * len(self.config.variables)

    @torch.no_grad()
    def step(self, history: Tensor, time_features: Tensor, noise: Tensor) -> Tensor:
        """One step ahead, in normalised units, float32.

        history (batch, time, point, channel), oldest state first; time_features (4,); noise
        (batch, noise_dim) -> (batch, point, channel), overwritten by the next call. ModelError
        for another batch size.
        """
        self._check(history, noise)
        channels = len(self.config.variables)
        states = self.features[:, :, : self.history_width].unflatten(-1, (-1, channels))
        states.copy_(history.transpose(1, 2))
        self.features[:, :, self.config.features - 4 : self.config.features] = time_features
        self.noise.copy_(noise)
        if self.device.type != "cuda":
            return self.compute()
        self.prepare()()
        assert self.result is not None
        return self.result

    def prepare(self) -> Callable[[], None]:
        """Compile the kernels and record the graph, once -> what replays a step."""
        if self._replay is None:
            with torch.no_grad(), torch.cuda.device(self.device):
                self._replay = self._record()
        return self._replay

    def _check(self, history: Tensor, noise: Tensor) -> None:
        expected = (
            self.batch_size,
            self.config.num_history_steps,
            self.points,
            len(self.config.variables),
        )
        if history.shape != expected or noise.shape != self.noise.shape:
            raise ModelError(
                f"history {tuple(history.shape)} and noise {tuple(noise.shape)} do not fit the "
                f"engine, which takes {expected} and {tuple(self.noise.shape)}",
                remedy="give the engine's batch_size to the rollout",
            )

    def _record(self) -> Callable[[], None]:
        """Compile and warm up outside the graph, then record one step."""
        ensure_tuned(self.device)
        with only_compiling():
            self.compute()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self.compute()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()  # the graph has its own pool; the warm-up's would stay beside it
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self.result = self.compute()
        return graph.replay

    def compute(self) -> Tensor:
        """The network on the rows in `features` and the vectors in `noise`: -> normalised state."""
        weights, eps, batch = self.weights, self.config.norm_eps, self.batch_size
        biases = torch.stack([weights.noise @ draw for draw in self.noise])
        x = product(self.features.flatten(0, 1), weights.preprocess[0], batch)
        x = product(normed_sum(x, eps, silu=True, out=x), weights.preprocess[1], batch)
        x = self._interpolate(x, weights.to_healpix)
        skips = []
        for stage, down in zip(weights.encoders, weights.downs, strict=True):
            x = self._stage(x, stage, biases)
            skips.append(x)
            x = _down(x, down, eps, batch)
        x = self._stage(x, weights.bottleneck, biases)
        for stage, up in zip(weights.decoders, weights.ups, strict=True):
            x = self._stage(_up(x, up, skips.pop(), eps, batch), stage, biases)
        x = self._interpolate(x, weights.to_grid)
        scale = row_scale(x, eps)
        x = scaled_silu(product(x, weights.postprocess[0], batch), scale)
        return wide_product(x, weights.postprocess[1], batch).unflatten(0, (batch, -1))

    def _interpolate(self, x: Tensor, weights: InterpolationWeights) -> Tensor:
        """Both norms before an interpolation, and the interpolation: (rows, dim) -> rows."""
        scale = row_scale(x, self.config.norm_eps, twice=True)
        batch = self.batch_size
        projected = product(x, weights.projection, batch).unflatten(0, (batch, -1))
        gathered = x.new_empty(batch, len(weights.indices), x.shape[1])
        interpolate(
            projected,
            scale,
            weights.indices,
            weights.directions,
            heads=weights.heads,
            out=gathered,
        )
        return product(gathered.flatten(0, 1), weights.out, batch)

    def _stage(self, x: Tensor, stage: LevelWeights, biases: Tensor) -> Tensor:
        scale = row_scale(x, self.config.norm_eps)
        for block in stage.blocks:
            scale = self._attention(x, scale, block, stage)
            scale = self._feed_forward(x, scale, block, stage.level, biases[:, block.bias])
        return x

    def _attention(
        self, x: Tensor, scale: Tensor, block: BlockWeights, stage: LevelWeights
    ) -> Tensor:
        """x += attention(norm(x)) in place, `scale` that norm's -> the scale of the next norm."""
        level, batch = stage.level, self.batch_size
        heads, kv_heads, size = level.num_heads, level.kv_heads, level.head_dim
        blocks = level.tokens // level.sparse_block
        values = value_type(self.device, self.dtype)
        projected, means = project(
            x,
            block.projection,
            scale,
            stage.rotation,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=size,
            tokens=level.tokens,
            block=level.sparse_block,
            value_type=values,
        )
        parts = [heads * size, kv_heads * size, kv_heads * size, 3 * heads]
        columns = projected[:, : sum(parts)].unflatten(0, (batch, -1)).split(parts, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, size)) for part in columns[:3])
        sizes = Sizes(level.local_block, level.sparse_block, level.selected_blocks)
        counts = (heads, kv_heads, size)
        scratch = Scratch.empty(batch, blocks, counts, level.selected_blocks, x)
        means_of = means.unflatten(0, (batch, -1)).split([heads, kv_heads, kv_heads], dim=2)
        gates = columns[3].unflatten(-1, (heads, 3))
        out = x.new_empty(batch, level.tokens, heads, size)
        attend(q, k, v.view(values), gates, means_of, sizes, scratch, out=out)
        rows = out.view(len(x), -1)
        return add_product(x, rows, block.out, self.config.norm_eps, members=batch)

    def _feed_forward(
        self, x: Tensor, scale: Tensor, block: BlockWeights, level: LevelConfig, bias: Tensor
    ) -> Tensor:
        """x += w2(swiglu(norm(x))) in place, `scale` that norm's -> the scale of the next norm."""
        eps, members, tokens = self.config.norm_eps, self.batch_size, level.tokens
        if block.w13_scale is None or block.w2_scale is None:
            hidden = x.new_empty(len(x), level.hidden)
            swiglu(x, block.w13, scale, bias, tokens=tokens, out=hidden)
            return add_product(x, hidden, block.w2, eps, members=members)
        rows, factor = quantized(x, eps)
        hidden = x.new_empty(len(x), level.hidden, dtype=torch.int8)
        steps = x.new_empty(hidden_groups(level.hidden), len(x), dtype=torch.float32)
        swiglu(
            rows,
            block.w13,
            factor,
            bias,
            tokens=tokens,
            out=hidden,
            weight_scale=block.w13_scale,
            out_scale=steps,
        )
        return add_product(
            x, hidden, block.w2, eps, members=members, scales=(steps, block.w2_scale)
        )


def _down(x: Tensor, change: Change, eps: float, members: int) -> Tensor:
    """Four children, adjacent rows, to their parent."""
    parents = product(x.view(len(x) // 4, -1), change.projection, members)
    return normed_sum(parents, eps, table=change.positions, out=parents)


def _up(x: Tensor, change: Change, skip: Tensor, eps: float, members: int) -> Tensor:
    """A parent to its four children, with the skip of the way down."""
    width = skip.shape[1]
    children = product(x, change.projection, members).view(-1, width)
    table = change.positions.view(-1, width)
    return normed_sum(children, eps, table=table, skip=skip, out=children)


def bytes_needed(config: ModelConfig, points: int, batch: int) -> int:
    """Device memory of an engine for `batch` members in a 16-bit type, without the states."""
    finest = config.levels[0]
    widest = max(
        level.tokens * (max(2 * level.hidden, 4 * level.dim) + level.dim) for level in config.levels
    )
    skips = sum(level.tokens * level.dim for level in config.stages)
    grid = points * (config.features + 64 + 6 * config.dim) + finest.tokens * 2 * config.dim
    activations = 2 * (skips + max(widest, grid)) + 4 * points * len(config.variables) * 2
    return batch * activations + 2 * _parameters(config)


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Mosaic(config).parameters())


def fitting_batch(
    config: ModelConfig, points: int, device: torch.device, wanted: int | None
) -> int:
    """`wanted` members (default DEFAULT_BATCH), or fewer if the free memory asks for it.

    ModelError with the bytes needed where not even one member fits.
    """
    batch = wanted or DEFAULT_BATCH
    if device.type != "cuda":
        return batch
    free, _ = torch.cuda.mem_get_info(device)
    while batch > 1 and bytes_needed(config, points, batch) > free:
        batch -= 1
    needed = bytes_needed(config, points, batch)
    if needed > free:
        raise ModelError(
            f"one member needs {needed / 2**30:.1f} GiB on {device}, {free / 2**30:.1f} are free",
            remedy="free the GPU, or use the device cpu",
        )
    if wanted and batch < wanted:
        logger.warning("batch of %d members, not %d: %.1f GiB free", batch, wanted, free / 2**30)
    return batch


def accelerated(
    model: Mosaic,
    device: torch.device,
    *,
    batch_size: int | None = None,
    precision: str = "float16",
    members: int | None = None,
) -> FastEngine | None:
    """The fast engine for `model` on a CUDA device, or None where the network itself must run.

    It takes `batch_size` members at a time, by default DEFAULT_BATCH, but not more than the
    `members` there are. `precision` is one of PRECISIONS. One log line says which runs and why.
    ModelError for another precision, or int8 without a GPU that has the kernels.
    """
    if precision not in PRECISIONS:
        raise ModelError(
            f"unknown precision {precision!r}", remedy=f"one of {', '.join(PRECISIONS)}"
        )
    if precision == "int8" and not describe(device).hopper:
        raise ModelError(
            f"int8 has kernels for Hopper GPUs only, not for {describe(device).name}",
            remedy="leave the precision at float16",
        )
    if device.type != "cuda":
        logger.info("no CUDA device: the reference network runs on %s", device)
        return None
    if (capability := torch.cuda.get_device_capability(device)) < MINIMUM_CAPABILITY:
        logger.warning("compute capability %d.%d, not 8.0: the network itself runs", *capability)
        return None
    wanted = batch_size or DEFAULT_BATCH
    most = min(wanted, members) if members else wanted
    engine = FastEngine(model, device, batch_size=most, eight_bit=precision == "int8")
    kernels = "Hopper and Triton" if describe(device).hopper else "portable Triton"
    logger.info(
        "fast engine on %s, %s kernels, %s, %d members at a time",
        describe(device).name,
        kernels,
        precision,
        engine.batch_size,
    )
    return engine
