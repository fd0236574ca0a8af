"""The leads that a forecast store holds already, as the steps they came from.

A resumed run needs them for its products, which are made of the stored values anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.forecast_spec import ForecastSpec
from postprocess.rows import MAP_SHAPE, Row
from postprocess.shards import decode_chunk, read_index

Lengths = NDArray[np.uint32]


def replay(
    spec: ForecastSpec, rows: Sequence[Row], lengths: Sequence[Lengths]
) -> Iterator[ForecastStep]:
    """One step per entry of `lengths`, the first of which is that of step 0.

    `lengths` are the chunk lengths of every row at each lead; chunks lie one after the other.
    StoreError when a chunk is missing or damaged.
    """
    offsets = np.zeros(len(rows), dtype=np.int64)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="replay") as pool:
        for step, sizes in enumerate(lengths):
            fields = np.empty((len(spec.numbers), len(CHANNEL_NAMES), *MAP_SHAPE), np.float32)
            places = zip(rows, offsets.tolist(), sizes.tolist(), strict=True)
            list(pool.map(lambda place, target=fields: _fill(target, *place), places))
            yield ForecastStep(
                spec.init_time, step, spec.lead_times[step], spec.numbers, CHANNEL_NAMES, fields
            )
            offsets += sizes


def stored_lengths(rows: Sequence[Row], leads: int) -> list[Lengths]:
    """Chunk lengths of every row at each lead, from the indices of finished shards."""
    by_row = np.array([read_index(row.path, leads)[:, 1] for row in rows], dtype=np.uint32)
    return list(by_row.T)


def _fill(fields: NDArray[np.float32], row: Row, offset: int, length: int) -> None:
    part = _part(row.path, offset, length)
    fields[row.member, row.channel] = decode_chunk(part, MAP_SHAPE, str(row.path))


def _part(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise StoreError(
            f"cannot read a shard: {error.strerror}",
            where=str(path),
            remedy="remove the store and run the cycle again",
        ) from None
