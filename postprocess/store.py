"""The forecast store: ForecastSteps in, one Zarr v3 store out.

Shards hold all leads of one member, variable and level, and grow by one chunk per lead, so memory
holds a bounded number of leads however long the forecast is. Each shard belongs to one worker
thread. The store grows in a hidden folder beside its path and is renamed when it is whole; after
a crash it goes on at the first lead that is not complete.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.forecast_spec import ForecastSpec
from postprocess.journal import Journal, cut_shard, trim_shard
from postprocess.layout import forecast_document
from postprocess.rows import MAP_SHAPE, append, fill, rows_of
from postprocess.shards import encode_index
from postprocess.store_files import (
    disk_errors,
    put_in_place,
    write_coordinates,
    write_documents,
)
from postprocess.structure import guard, template_name

_LOG = logging.getLogger(__name__)


@dataclass
class WriterReport:
    """What a writer did: bytes of float32 in, bytes stored, seconds `write` waited for room."""

    leads_written: int = 0
    leads_skipped: int = 0
    bytes_in: int = 0
    bytes_stored: int = 0
    seconds_blocked: float = 0.0


class ForecastWriter:
    """Context manager that takes every ForecastStep of a run, in order, and makes `path`.

    `path` opens with plain `xarray.open_zarr`; there is nothing at `path` before it is whole.

    `write` rounds the step into one of `max_pending` buffers and returns; packing goes on in one
    thread per core. It waits only when all buffers are in use (back-pressure, measured in
    `report.seconds_blocked`). Leads that an
    earlier, interrupted writer completed are skipped: the same forecast gives the same bits.
    Leaving the block before the last lead keeps what there is for the next attempt.

    StoreError: steps out of order, another run's steps, a full disk, or a finished store of
    another forecast at `path`.
    """

    def __init__(
        self,
        path: Path,
        spec: ForecastSpec,
        *,
        workers: int | None = None,
        max_pending: int = 2,
    ) -> None:
        self.path = path
        self.spec = spec
        self.report = WriterReport()
        self._document = forecast_document(spec.sizes, spec.rounding, spec.attributes())
        guard(self._document, template_name("forecast", spec.rounding), spec.open_sizes)
        self._partial = path.with_name(f".{path.name}.partial")
        self._rows = rows_of(spec, self._partial)
        self._journal = Journal(
            path.with_name(f".{path.name}.journal"), spec.content_key, len(self._rows)
        )
        self.finished = _is_finished(path, spec)
        if self.finished:
            self._journal.close(remove=True)
        self._lengths: list[NDArray[np.uint32]] = [] if self.finished else self._resume()
        self._next_step: int | None = None
        self._free: list[NDArray[np.float32]] = []
        self._buffer_count = 0
        self._max_pending = max_pending
        self._pending: deque[tuple[NDArray[np.float32], list[Future[list[int]]]]] = deque()
        count = workers or len(os.sched_getaffinity(0))
        self._lanes = [
            ThreadPoolExecutor(1, thread_name_prefix=f"store-{lane}") for lane in range(count)
        ]

    @property
    def completed(self) -> int:
        """Leads that are stored and recorded; the next rollout may start after them."""
        return len(self.spec.lead_times) if self.finished else len(self._lengths)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._let_go()

    def write(self, step: ForecastStep) -> None:
        """Take the next step of the stream (number, channel, longitude, latitude)."""
        self._check(step)
        self._next_step = step.step + 1
        if step.step < self.completed:
            self.report.leads_skipped += 1
            return
        self._harvest(leave=len(self._pending))
        buffer = self._room()
        fill(buffer, step.fields, self._rows)
        count = len(self._lanes)
        futures = [
            lane.submit(append, buffer, self._rows[first::count])
            for first, lane in enumerate(self._lanes)
        ]
        self._pending.append((buffer, futures))
        self.report.bytes_in += buffer.nbytes

    def annotate(self, **attributes: Any) -> None:
        """Set run attributes that are only known at the end, such as member_health."""
        self._document["attributes"].update(attributes)

    def close(self) -> None:
        """Finish the store and put it at `path`; StoreError when leads are missing."""
        if self.finished:
            return
        try:
            self._harvest(leave=0)
            self._finish()
        finally:
            self._let_go()
        _LOG.info("stored %s: %s", self.path, asdict(self.report))

    def _check(self, step: ForecastStep) -> None:
        spec = self.spec
        self._check_order(step.step)
        faults = [
            f"{name} is {found}, expected {wanted}"
            for name, found, wanted in (
                ("init_time", step.init_time, spec.init_time),
                ("lead_time", step.lead_time, spec.lead_times[step.step]),
                ("numbers", step.numbers, spec.numbers),
                ("channels", step.channels, CHANNEL_NAMES),
                ("grid", step.fields.shape[2:], MAP_SHAPE[::-1]),
            )
            if found != wanted
        ]
        if faults:
            raise StoreError("; ".join(faults), where=f"{self.path}, step {step.step}")

    def _check_order(self, step: int) -> None:
        """The first step may be any up to the first one that is missing; then one by one."""
        first = self._next_step is None and 0 <= step <= self.completed
        if (first or step == self._next_step) and step < len(self.spec.lead_times):
            return
        raise StoreError(
            f"step {step} came where step {self._next_step or 0} of {len(self.spec.lead_times)} "
            "was due",
            where=str(self.path),
            remedy="write the steps in order, the analysis (step 0) first",
        )

    def _room(self) -> NDArray[np.float32]:
        if not self._free and self._buffer_count < self._max_pending:
            self._buffer_count += 1
            return np.empty((len(self._rows), *MAP_SHAPE), dtype=np.float32)
        if not self._free:
            started = time.perf_counter()
            self._harvest(leave=self._max_pending - 1)
            self.report.seconds_blocked += time.perf_counter() - started
        return self._free.pop()

    def _harvest(self, leave: int) -> None:
        """Record finished leads in order; wait until at most `leave` are pending."""
        while self._pending:
            buffer, futures = self._pending[0]
            if len(self._pending) <= leave and not all(future.done() for future in futures):
                return
            with disk_errors(self.path):
                parts = [future.result() for future in futures]
                lengths = np.empty(len(self._rows), dtype=np.uint32)
                for first, part in enumerate(parts):
                    lengths[first :: len(parts)] = part
                self._journal.append(lengths)
            self._lengths.append(lengths)
            self.report.leads_written += 1
            self.report.bytes_stored += int(lengths.sum())
            self._pending.popleft()
            self._free.append(buffer)

    def _let_go(self) -> None:
        """End the workers and give up the store; the next attempt goes on from the journal."""
        for lane in self._lanes:
            lane.shutdown(wait=True, cancel_futures=True)
        self._journal.close(remove=self.finished)

    def _resume(self) -> list[NDArray[np.uint32]]:
        """Lengths of the leads that an earlier writer completed; a clean folder otherwise."""
        recorded = self._journal.read()
        if recorded is None or not self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
            for folder in {row.path.parent for row in self._rows}:
                folder.mkdir(parents=True)
            self._journal.start()
            return []
        whole = min(trim_shard(row.path, recorded[:, row.index]) for row in self._rows)
        self._journal.keep(whole)
        for row in self._rows:
            row.path.parent.mkdir(parents=True, exist_ok=True)
            row.path.touch()
            cut_shard(row.path, int(recorded[:whole, row.index].sum()))
        return list(recorded[:whole])

    def _finish(self) -> None:
        if self.completed < len(self.spec.lead_times):
            raise StoreError(
                f"{self.completed} of {len(self.spec.lead_times)} leads were written",
                where=str(self.path),
                remedy="run the command again: it goes on after the last complete lead",
            )
        with disk_errors(self.path):
            self._close_shards()
            write_coordinates(self._partial, self._document, self.spec.coordinates())
            write_documents(self._partial, self._document)
            put_in_place(self._partial, self.path)
        self.finished = True

    def _close_shards(self) -> None:
        """Append the index that makes each grown file a shard."""
        lengths = np.array(self._lengths)
        for row in self._rows:
            index = encode_index(lengths[:, row.index])
            with row.path.open("ab") as file:
                file.write(index)
            self.report.bytes_stored += len(index)


def _is_finished(path: Path, spec: ForecastSpec) -> bool:
    """Whether `path` is this forecast's finished store; StoreError if it is another's."""
    root = path / "zarr.json"
    if not path.exists():
        return False
    try:
        found = json.loads(root.read_bytes())["attributes"]["content_key"]
    except (OSError, ValueError, KeyError):
        found = None
    if found != spec.content_key:
        raise StoreError(
            "there is a store here already, of another forecast or damaged",
            where=str(path),
            remedy="remove it or choose another path",
        )
    return True
