"""Where a model runs and in which type, from one word of the user's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.model.checkpoint import usable_device, weights_path

FULL_SIZE_BYTES = 100e6
"""Weights of the published variants are 8 times as large or more, those of the demo 1/40."""


def placement(name: str) -> tuple[torch.device, torch.dtype]:
    """Device and type for 'auto', 'cpu', 'cuda' or 'cuda:N': float16 on a GPU, else float32.

    'auto' is the first GPU if there is one. ModelError for a device this machine does not have.
    """
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = usable_device(chosen)
    return device, torch.float16 if device.type == "cuda" else torch.float32


def refuse_days_on_a_cpu(weights: Path, variant: str, device: str) -> None:
    """InputError when 'auto' would mean a CPU for a model of full size: a cycle would take days.

    Naming the CPU is asking for it. That weights are missing is said where they are read.
    """
    try:
        size = weights_path(weights, variant).stat().st_size
    except ModelError:
        return
    if device == "auto" and size >= FULL_SIZE_BYTES and placement(device)[0].type == "cpu":
        raise InputError(
            f"there is no GPU here, and {variant} would take days on a CPU",
            where="device auto",
            remedy="type it where the GPU is; --device cpu if a CPU is what you want",
        )


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A few `values` of the CPU on `device`, without waiting for the work that is queued there."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
