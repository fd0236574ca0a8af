"""What the kernels need to know of a GPU, read once per device."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

MOST_STAGES = 3  # more hide no more of the memory's latency


@dataclass(frozen=True)
class Device:
    """Name, compute capability, multiprocessors and shared memory of a program on one GPU."""

    name: str
    capability: tuple[int, int]
    processors: int
    shared_memory: int

    @property
    def hopper(self) -> bool:
        """Whether warpgroup matrix instructions and the Hopper kernels run here."""
        return self.capability == (9, 0) and gluon_importable()

    def stages(self, step_bytes: int, rest_bytes: int = 0) -> int:
        """How far a kernel's loop is pipelined: as far as its shared memory lasts, up to 3.

        Every stage but one holds a step's `step_bytes`; `rest_bytes` are beside them. A program
        has 99 KiB (compute capability 8.6 and 8.9), 163 (8.0) or 227 (9.0).
        """
        return min(MOST_STAGES, 1 + max(0, self.shared_memory - rest_bytes) // step_bytes)


@functools.cache
def describe(device: torch.device) -> Device:
    """The GPU, or a stand-in with one processor for the CPU (Triton's interpreter)."""
    if device.type != "cuda":
        return Device("cpu", (0, 0), 1, 2**18)
    found = torch.cuda.get_device_properties(device)
    capability = (found.major, found.minor)
    shared = found.shared_memory_per_block_optin  # type: ignore[attr-defined]  # not in the stubs
    return Device(found.name, capability, found.multi_processor_count, shared)


@functools.cache
def gluon_importable() -> bool:
    """Whether this Triton has the experimental Gluon interface as the Hopper kernels use it."""
    try:
        from mosaic_core.attention.kernels import hopper_attention, hopper_residual  # noqa: F401
    except (ImportError, AttributeError, TypeError):
        return False
    return True
