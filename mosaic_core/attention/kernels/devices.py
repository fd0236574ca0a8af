"""What the kernels need to know of a GPU, read once per device."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Device:
    """Name, compute capability and number of multiprocessors of one GPU."""

    name: str
    capability: tuple[int, int]
    processors: int

    @property
    def hopper(self) -> bool:
        """Whether warpgroup matrix instructions and the Hopper kernels run here."""
        return self.capability == (9, 0) and gluon_importable()


@functools.cache
def describe(device: torch.device) -> Device:
    """The GPU, or a stand-in with one processor for the CPU (Triton's interpreter)."""
    if device.type != "cuda":
        return Device("cpu", (0, 0), 1)
    found = torch.cuda.get_device_properties(device)
    return Device(found.name, (found.major, found.minor), found.multi_processor_count)


@functools.cache
def gluon_importable() -> bool:
    """Whether this Triton has the experimental Gluon interface as the Hopper kernels use it."""
    try:
        from mosaic_core.attention.kernels import hopper_attention, hopper_residual  # noqa: F401
    except (ImportError, AttributeError, TypeError):
        return False
    return True
