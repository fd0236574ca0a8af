"""The fastest candidates of the portable kernels on this GPU, found once and kept.

Only speed is chosen: a candidate whose result differs from the first one's in a single bit is
left out, so that a member has the same bits whatever was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from mosaic_core.attention.kernels import portable_attention
from mosaic_core.attention.kernels.choices import CANDIDATES, Choice, keep, kept
from mosaic_core.attention.kernels.devices import describe
from mosaic_core.attention.kernels.feedforward import interleave, portable_swiglu
from mosaic_core.attention.kernels.launching import only_compiling

logger = logging.getLogger(__name__)

Launch = Callable[[Choice], Tensor]
Clock = Callable[[Callable[[], object]], float]

TOKENS, HEADS, KV_HEADS, HEAD_DIM = 16384, 12, 3, 64  # of the finest level of the published model
LOCAL_BLOCK, SPARSE_BLOCK, LISTED, HIDDEN = 1024, 128, 24, 3072
REPEATS = 5


def ensure_tuned(device: torch.device) -> None:
    """Measure the candidates if this kind of GPU needs them and has no table yet."""
    gpu = describe(device)
    if device.type != "cuda" or gpu.hopper or kept(gpu) is not None:
        return
    logger.info("measuring the kernels' tiles on %s, once", gpu.name)
    with torch.cuda.device(device), torch.no_grad():
        launches = {"attention": attention_layer(device), "swiglu": swiglu_layer(device)}
        table = {
            kernel: fastest(launch, CANDIDATES[kernel], milliseconds)
            for kernel, launch in launches.items()
        }
    keep(gpu, table)
    logger.info("chosen on %s: %s", gpu.name, table)


def fastest(launch: Launch, candidates: Sequence[Choice], clock: Clock) -> Choice:
    """The quickest of the `candidates` that has the bits of the first and fits the GPU."""
    with only_compiling():
        for candidate in candidates:
            launch(candidate)
    expected = launch(candidates[0]).clone()
    times = {}
    for candidate in candidates:
        try:
            same = torch.equal(launch(candidate), expected)
        except OutOfResources:
            continue
        if same:
            times[candidate] = clock(partial(launch, candidate))
    return min(times, key=times.__getitem__)


def milliseconds(run: Callable[[], object]) -> float:
    """Time of one run on the GPU, the least of some."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    least = float("inf")
    for _ in range(REPEATS):
        begin.record()
        run()
        end.record()
        end.synchronize()
        least = min(least, begin.elapsed_time(end))
    return least


def attention_layer(device: torch.device, dtype: torch.dtype = torch.float16) -> Launch:
    """One layer of attention on random operands."""
    draw = _drawing(device, dtype)
    q, k, v = (draw(1, TOKENS, heads, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    gates, block_out = draw(1, TOKENS, HEADS, 3), draw(1, TOKENS // SPARSE_BLOCK, HEADS, HEAD_DIM)
    blocks = TOKENS // SPARSE_BLOCK
    scores = draw(1, KV_HEADS, blocks, blocks)
    selection = scores.topk(LISTED).indices.int()
    out = torch.empty_like(q)

    def launch(choice: Choice) -> Tensor:
        return portable_attention.fused_attention(
            q,
            k,
            v,
            gates,
            block_out,
            selection,
            local_block=LOCAL_BLOCK,
            sparse_block=SPARSE_BLOCK,
            out=out,
            choice=choice,
        )

    return launch


def swiglu_layer(device: torch.device, dtype: torch.dtype = torch.float16) -> Launch:
    """The first maps of one feed-forward on random operands."""
    draw = _drawing(device, dtype)
    width = HEADS * HEAD_DIM
    x, w13 = draw(TOKENS, width), interleave(draw(2 * HIDDEN, width) * width**-0.5)
    scale, bias = draw(TOKENS).float(), draw(1, HIDDEN).float()
    out = x.new_empty(TOKENS, HIDDEN)

    def launch(choice: Choice) -> Tensor:
        return portable_swiglu(x, w13, scale, bias, tokens=TOKENS, out=out, choice=choice)

    return launch


def _drawing(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype, generator=generator)

    return draw
