"""Products beside the forecast: a few threads, every lead once and in order, bounded memory.

The caller gives a step and goes on as soon as a copy of it is made; it waits only while all copies
that may be are still in use (back-pressure).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep

Screen = Callable[[ForecastStep], ForecastStep]
Consumer = Callable[[ForecastStep], object]
T = TypeVar("T")


class Lanes:
    """Feeds every step to `screen`, and what that gives to all consumers, a thread for each lane.

    The fields of a step are copied in the caller's thread. The first exception of a consumer ends
    the work of all and is raised by the next call.
    """

    def __init__(
        self,
        screen: Screen,
        consumers: Mapping[str, Sequence[Consumer]],
        *,
        max_pending: int = 2,
    ) -> None:
        self._screen = screen
        self._consumers = dict(consumers)
        self._entrance = ThreadPoolExecutor(1, thread_name_prefix="products")
        self._lanes = {
            name: ThreadPoolExecutor(1, thread_name_prefix=f"products-{name}") for name in consumers
        }
        self._buffers: SimpleQueue[NDArray[np.float32] | None] = SimpleQueue()
        for _ in range(max_pending):
            self._buffers.put(None)
        self._fault: Exception | None = None

    def feed(self, step: ForecastStep) -> None:
        """Take the next step; waits for room."""
        self._raise_fault()
        buffer = self._buffers.get()
        if buffer is None or buffer.shape != step.fields.shape:
            buffer = np.empty(step.fields.shape, dtype=np.float32)
        np.copyto(buffer, step.fields)
        self._entrance.submit(self._pass_on, replace(step, fields=buffer))

    def drain(self) -> None:
        """Wait until every step was consumed."""
        self._entrance.submit(int).result()
        for lane in self._lanes.values():
            lane.submit(int).result()
        self._raise_fault()

    def run(self, name: str, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Do something else in the thread of a lane, after the steps it has."""
        return self._lanes[name].submit(work, *arguments)

    def close(self) -> None:
        """End the threads; steps that wait are dropped."""
        for pool in (self._entrance, *self._lanes.values()):
            pool.shutdown(wait=True, cancel_futures=True)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _pass_on(self, own: ForecastStep) -> None:
        lease = _Lease(len(self._lanes) + 1, lambda: self._buffers.put(own.fields))
        ready = self._guarded(self._screen, own)
        for name, lane in self._lanes.items():
            if ready is not None:
                done = lane.submit(self._guarded, partial(_each, self._consumers[name]), ready)
                done.add_done_callback(lease.give_up)
            else:
                lease.give_up()
        lease.give_up()

    def _guarded(self, work: Callable[[ForecastStep], T], step: ForecastStep) -> T | None:
        """The result of `work`; None after a fault, which is kept for the caller."""
        if self._fault is not None:
            return None
        try:
            return work(step)
        except Exception as fault:  # noqa: BLE001 - raised again in the caller's thread
            self._fault = self._fault or fault
            return None


def _each(consumers: Sequence[Consumer], step: ForecastStep) -> None:
    for consumer in consumers:
        consumer(step)


class _Lease:
    """Calls `ended` when the last of `holders` has given up."""

    def __init__(self, holders: int, ended: Callable[[], None]) -> None:
        self._holders = holders
        self._ended = ended
        self._lock = threading.Lock()

    def give_up(self, _: object = None) -> None:
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._ended()
