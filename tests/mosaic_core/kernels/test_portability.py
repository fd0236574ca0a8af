"""Every portable kernel compiled for GPUs that are not here: does a program fit their memory?"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SHARED_MEMORY = {(8, 0): 163, (8, 6): 99, (12, 0): 99}  # KiB a program may have; 8.9 as 8.6
KERNELS = {
    "_fused", "_swiglu", "_compressed", "_means", "_scores", "_best", "_finish", "_gather",
    "_row_scale", "_normed_sum", "_scaled_silu",
}  # fmt: skip


def compiled_for(capability: tuple[int, int], shared: int, dtype: str) -> dict[str, int]:
    """Bytes of shared memory of every kernel, compiled for a GPU with `shared` of them."""
    environment = {name: word for name, word in os.environ.items() if name != "TRITON_INTERPRET"}
    words = [*(str(word) for word in (*capability, shared)), dtype]
    command = [sys.executable, "-m", "tests.mosaic_core.kernels.compile_elsewhere", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("capability", "dtype"), [*((known, "float16") for known in SHARED_MEMORY), ((8, 6), "float32")]
)
def test_every_kernel_fits_the_gpu(capability: tuple[int, int], dtype: str) -> None:
    shared = SHARED_MEMORY[capability] * 1024
    used = compiled_for(capability, shared, dtype)
    assert set(used) == KERNELS
    assert max(used.values()) <= shared


def test_a_pipeline_too_deep_for_the_memory_would_be_seen() -> None:
    """Made for a GPU with more memory than this one has, the kernels do not fit it."""
    used = compiled_for((8, 6), 227 * 1024, "float32")
    assert max(used.values()) > SHARED_MEMORY[8, 6] * 1024
