"""Where a model runs and in which type, from one word of the user's."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.model.checkpoint import usable_device


def placement(name: str) -> tuple[torch.device, torch.dtype]:
    """Device and type for 'auto', 'cpu', 'cuda' or 'cuda:N': float16 on a GPU, else float32.

    'auto' is the first GPU if there is one. ModelError for a device this machine does not have.
    """
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = usable_device(chosen)
    return device, torch.float16 if device.type == "cuda" else torch.float32


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A few `values` of the CPU on `device`, without waiting for the work that is queued there."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
