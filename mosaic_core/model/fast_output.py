"""From device to host while the next step computes: a ring of pinned buffers, a second stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SLOTS = 3  # one being read by the receiver, one being filled, one waiting for the device

Image = tuple[Tensor, Tensor]  # fields (member, channel, lon, lat); finite (member, channel)


class HostImages:
    """Pinned room on the host for SLOTS images of all members; every GPU fills its share."""

    def __init__(self, members: int) -> None:
        self._members = members
        self._slots: list[Image] = []
        self._making = threading.Lock()

    def room(self, count: int, like: Image) -> Image:
        """Where image number `count` goes; `like` has its shapes and types but the members.

        All is made at the first call, while the first step computes.
        """
        with self._making:
            while len(self._slots) < SLOTS:
                self._slots.append((self._pinned(like[0]), self._pinned(like[1])))
        return self._slots[count % SLOTS]

    def fields(self, count: int) -> NDArray[np.float32]:
        """The fields of image number `count`, all members."""
        return self._slots[count % SLOTS][0].numpy()

    def _pinned(self, like: Tensor) -> Tensor:
        return torch.empty(self._members, *like.shape[1:], dtype=like.dtype, pin_memory=True)


@dataclass(frozen=True)
class _Sent:
    fields: Tensor
    finite: Tensor
    done: torch.cuda.Event

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self.done.synchronize()
        return self.fields.numpy(), self.finite.numpy()


class PinnedRing:
    """`to_host` of the rollout: the copy of one step runs beside the computation of the next.

    An array is overwritten when the receiver asks for the second image after it. With `images`
    the members of this ring are the `share` of a larger ensemble.
    """

    def __init__(self, images: HostImages | None = None, share: slice = slice(None)) -> None:
        self._images = images
        self._share = share
        self._stream: torch.cuda.Stream | None = None

    def __call__(
        self, images: Iterable[Image]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """(fields, finite) on the device -> the same on the host, in order, one step behind.

        The first image is asked for at once: its step computes while the receiver does other
        things.
        """
        sent = (self._send(count, image) for count, image in enumerate(images))
        return _one_behind(sent, deque(islice(sent, 1)))

    def _send(self, count: int, image: Image) -> _Sent:
        device = image[0].device
        self._images = self._images or HostImages(len(image[0]))
        room = [part[self._share] for part in self._images.room(count, image)]
        stream = self._stream = self._stream or torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        done = torch.cuda.Event()
        with torch.cuda.stream(stream):
            for part, to in zip(image, room, strict=True):
                to.copy_(part, non_blocking=True)
                part.record_stream(stream)  # not given out again before the copy is done
            done.record(stream)
        return _Sent(room[0], room[1], done)


def _one_behind(
    sent: Iterator[_Sent], waiting: deque[_Sent]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    for following in sent:  # asking for one queues its step on the device
        waiting.append(following)
        if len(waiting) == SLOTS - 1:
            yield waiting.popleft().arrays()
    while waiting:
        yield waiting.popleft().arrays()
