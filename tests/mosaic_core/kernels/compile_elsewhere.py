"""Compiles the portable kernels for a GPU that is not here and prints their shared memory.

    python -m tests.mosaic_core.kernels.compile_elsewhere 8 6 101376 float16

Takes the compute capability, the bytes of shared memory that a program may have and the type of
the operands. The launching functions are the real ones, at the published sizes; what they launch
is compiled, not run. Must not run under Triton's interpreter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from mosaic_core.attention.kernels import devices, launching

MAJOR, MINOR, SHARED = (int(word) for word in sys.argv[1:4])
DTYPE = getattr(torch, sys.argv[4])
GPU = devices.Device("elsewhere", (MAJOR, MINOR), 80, SHARED)
found: dict[str, int] = {}


class Driver:
    """What Triton asks of a driver when it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 10 * MAJOR + MINOR, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


def compiling(kernel: Any, grid: tuple[int, ...]) -> Callable[..., None]:
    def compile_it(*args: Any, **options: Any) -> None:
        compiled = kernel.warmup(*args, grid=grid, **options)
        found[kernel.__name__] = max(compiled.metadata.shared, found.get(kernel.__name__, 0))

    return compile_it


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    launching.enqueue = compiling
    devices.describe = lambda _: GPU  # type: ignore[assignment]
    from mosaic_core.attention.kernels import attention, interpolation, norms, projection, tuning
    from mosaic_core.attention.kernels.choices import Choice
    from mosaic_core.attention.kernels.selection import block_means

    tuning.attention_layer(torch.device("cpu"), DTYPE)(Choice())
    tuning.swiglu_layer(torch.device("cpu"), DTYPE)(Choice())
    tokens, heads, kv_heads, size, block = 3072, 20, 5, 64, 128
    q, k, v, gates = (
        torch.zeros(1, tokens, count, width, dtype=DTYPE)
        for count, width in ((heads, size), (kv_heads, size), (kv_heads, size), (heads, 3))
    )
    attention.attend(
        q, k, v, gates, tuple(block_means(x, block) for x in (q, k, v)),
        attention.Sizes(1024, block, 5),
        attention.Scratch.empty(1, tokens // block, (heads, kv_heads, size), 5, q),
        out=torch.empty_like(q),
    )  # fmt: skip
    x, scale = torch.zeros(tokens, heads * size, dtype=DTYPE), torch.zeros(tokens)
    projection.finish_projection(
        torch.zeros(tokens, 1984, dtype=DTYPE), scale,
        (torch.zeros(tokens, size // 2), torch.zeros(tokens, size // 2)),
        torch.zeros(tokens // block, heads + 2 * kv_heads, size),
        heads=heads, kv_heads=kv_heads, head_dim=size, tokens=tokens, block=block,
        value_type=DTYPE,
    )  # fmt: skip
    targets, width = 64, heads * size + 3 * 16
    interpolation.interpolate(
        torch.zeros(1, tokens, -(-width // 64) * 64, dtype=DTYPE), scale[None],
        torch.zeros(targets, 32, dtype=torch.int32), torch.zeros(targets, 32, 3),
        heads=16, out=torch.empty(1, targets, heads * size, dtype=DTYPE),
    )  # fmt: skip
    norms.row_scale(x, 1e-6)
    norms.normed_sum(x, 1e-6, silu=True, out=x)
    norms.scaled_silu(x, scale)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
