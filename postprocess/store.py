"""The forecast store: ForecastSteps in, one Zarr v3 store out.

Shards hold all leads of one member, variable and level, and grow by one chunk per lead, so the
writer holds no lead at all: threads pack straight from the producer's array. A shard is in the
hands of one thread at a time. The store grows in a hidden folder beside its path and is renamed
when it is whole; after a crash it goes on at the first lead that is not complete.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from postprocess.replay import replay, stored_lengths
from postprocess.rounding import MANTISSA_BITS, mantissa_bits
from postprocess.rows import MAP_SHAPE, ShardFiles, rows_of
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
    """What a writer did: bytes of float32 in, bytes stored, seconds that `write` kept its caller,
    seconds until the finished store was on the disk."""

    leads_written: int = 0
    leads_skipped: int = 0
    bytes_in: int = 0
    bytes_stored: int = 0
    seconds_blocked: float = 0.0
    seconds_syncing: float = 0.0


class ForecastWriter:
    """Context manager that takes every ForecastStep of a run, in order, and makes `path`.

    `path` opens with plain `xarray.open_zarr`; there is nothing at `path` before it is whole.

    `write` packs the step in one thread per core and returns when its shards have grown: nothing
    is held, and the array is the producer's again. A GPU goes on meanwhile with the steps that
    are queued on it, and waits only for a store that is slower than it (`report.seconds_blocked`
    is the time that `write` took). Leads that an earlier, interrupted writer completed are
    skipped: the same forecast gives the same bits. Leaving the block before the last lead keeps
    what there is for the next attempt.

    StoreError: steps out of order, another run's steps, a full disk, or a finished store of
    another forecast at `path`.
    """

    def __init__(
        self,
        path: Path,
        spec: ForecastSpec,
        *,
        workers: int | None = None,
    ) -> None:
        self.path = path
        self.spec = spec
        self.report = WriterReport()
        self._document = forecast_document(spec.sizes, spec.rounding, spec.attributes())
        guard(self._document, template_name("forecast", spec.rounding), spec.open_sizes)
        self._partial = path.with_name(f".{path.name}.partial")
        self._journal = Journal(
            path.with_name(f".{path.name}.journal"),
            spec.content_key,
            len(spec.numbers) * len(CHANNEL_NAMES),
        )
        try:
            with disk_errors(path):
                self._begin()
        except BaseException:
            self._journal.close()
            raise
        self._next_step: int | None = None
        self._workers = workers or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="store")

    def _begin(self) -> None:
        """See what there is, now that nobody else writes it, and open the shards."""
        self.finished = _is_finished(self.path, self.spec)
        self._rows = rows_of(self.spec, self.path if self.finished else self._partial)
        self._files = ShardFiles([])
        if self.finished:
            self._lengths = stored_lengths(self._rows, len(self.spec.lead_times))
            shutil.rmtree(self._partial, ignore_errors=True)
            self._journal.close(remove=True)
        else:
            self._lengths = self._resume()
            self._files = ShardFiles(self._rows)

    @property
    def completed(self) -> int:
        """Leads that are stored and recorded."""
        return len(self._lengths)

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
        """Take the next step of the stream, its fields rounded as the spec says."""
        self._check(step)
        self._next_step = step.step + 1
        if step.step < self.completed:
            self.report.leads_skipped += 1
            return
        started = time.perf_counter()
        with disk_errors(self.path):
            lengths = self._pack(step.fields)
            if not self._files.are_there():
                raise self._removed()
            self._journal.append(lengths)
        self._lengths.append(lengths)
        self.report.leads_written += 1
        self.report.bytes_in += step.fields.nbytes
        self.report.bytes_stored += int(lengths.sum())
        self.report.seconds_blocked += time.perf_counter() - started

    def stored(self, count: int) -> Iterator[ForecastStep]:
        """The first `count` of the leads that an earlier writer completed, with the stored values.

        StoreError when a shard cannot be read.
        """
        return replay(self.spec, self._rows, self._lengths[:count])

    def annotate(self, **attributes: Any) -> None:
        """Set run attributes that are only known at the end, such as member_health."""
        self._document["attributes"].update(attributes)

    def close(self) -> None:
        """Finish the store and put it at `path`; StoreError when leads are missing."""
        if self.finished:
            return
        try:
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
                ("grid", step.fields.shape[2:], MAP_SHAPE),
            )
            if found != wanted
        ]
        faults += self._unrounded(step)
        if faults:
            raise StoreError("; ".join(faults), where=f"{self.path}, step {step.step}")

    def _unrounded(self, step: ForecastStep) -> list[str]:
        """The first map, if any, whose equator has more bits than the spec's rounding leaves.

        Members are rounded together: the first stands for all.
        """
        bits = mantissa_bits(self.spec.rounding)
        if bits is None:
            return []
        equator = step.fields[0, :, MAP_SHAPE[0] // 2]
        dropped = np.array([(1 << (MANTISSA_BITS - kept)) - 1 for kept in bits], dtype=np.uint32)
        left = (equator.view(np.uint32) & dropped[:, None]).astype(bool) & np.isfinite(equator)
        return [
            f"{step.channels[place]} is not rounded to {bits[place]} bits"
            for place in np.flatnonzero(left.any(axis=1))[:1]
        ]

    def _check_order(self, step: int) -> None:
        """The first step may be any up to the first one that is missing; then one by one."""
        due = self.completed if self._next_step is None else self._next_step
        if due > self.completed:
            raise StoreError(
                f"step {due - 1} could not be stored, nothing goes on after it",
                where=str(self.path),
                remedy="run the command again: it goes on after the last complete lead",
            )
        in_turn = 0 <= step <= due if self._next_step is None else step == due
        if not in_turn or step >= len(self.spec.lead_times):
            raise StoreError(
                f"step {step} came where step {due} of {len(self.spec.lead_times)} was due",
                where=str(self.path),
                remedy="write the steps in order, the analysis (step 0) first",
            )

    def _pack(self, fields: NDArray[np.float32]) -> NDArray[np.uint32]:
        """One more chunk in every shard; its length by row."""
        lengths = np.empty(len(self._rows), dtype=np.uint32)
        waiting = iter(self._rows)

        def work() -> None:
            for row in waiting:
                lengths[row.index] = self._files.append_map(row, fields)

        for done in [self._pool.submit(work) for _ in range(self._workers)]:
            done.result()
        return lengths

    def _let_go(self) -> None:
        """End the workers and give up the store; the next attempt goes on from the journal."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._files.close()
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
            started = time.perf_counter()
            put_in_place(self._partial, self.path)
        self.report.seconds_syncing = time.perf_counter() - started
        self.finished = True

    def _close_shards(self) -> None:
        """Append the index that makes each grown file a shard; StoreError when one is not there."""
        lengths = np.array(self._lengths)
        for row in self._rows:
            index = encode_index(lengths[:, row.index])
            self.report.bytes_stored += self._files.append(row, [index])
            whole = int(lengths[:, row.index].sum()) + len(index)
            if not row.path.is_file() or row.path.stat().st_size != whole:
                raise self._removed()

    def _removed(self) -> StoreError:
        return StoreError(
            "the store was removed or changed while it was written",
            where=str(self._partial),
            remedy="run the command again, and see what cleans up there",
        )


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
