"""From device to host while the next step computes: a ring of pinned buffers, a second stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SLOTS = 3  # one being read by the receiver, one being filled, one waiting for the device


@dataclass(frozen=True)
class _Slot:
    fields: Tensor
    finite: Tensor
    done: torch.cuda.Event

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self.done.synchronize()
        return self.fields.numpy(), self.finite.numpy()


class PinnedRing:
    """`to_host` of the rollout: the copy of one step runs beside the computation of the next.

    An array is overwritten when the receiver asks for the second image after it.
    """

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque()
        self._stream: torch.cuda.Stream | None = None

    def __call__(
        self, images: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """(fields, finite) on the device -> the same on the host, in order, one step behind."""
        waiting: deque[_Slot] = deque()
        for fields, finite in images:  # asking for an image queues its whole step on the device
            waiting.append(self._send(fields, finite))
            if len(waiting) == SLOTS - 1:
                yield waiting.popleft().arrays()
        while waiting:
            yield waiting.popleft().arrays()

    def _send(self, fields: Tensor, finite: Tensor) -> _Slot:
        slot = self._free_slot(fields, finite)
        computed = torch.cuda.current_stream(fields.device)
        stream = self._stream = self._stream or torch.cuda.Stream(fields.device)
        stream.wait_stream(computed)
        with torch.cuda.stream(stream):
            slot.fields.copy_(fields, non_blocking=True)
            slot.finite.copy_(finite, non_blocking=True)
            slot.done.record(stream)
        fields.record_stream(stream)  # its memory is not given out again before the copy is done
        finite.record_stream(stream)
        self._slots.append(slot)
        return slot

    def _free_slot(self, fields: Tensor, finite: Tensor) -> _Slot:
        if len(self._slots) == SLOTS:
            return self._slots.popleft()
        return _Slot(_pinned(fields), _pinned(finite), torch.cuda.Event())


def _pinned(like: Tensor) -> Tensor:
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
