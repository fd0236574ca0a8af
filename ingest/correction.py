"""Replacing an archived analysis: on purpose, with a reason, and on record.

The new chunks are made ready in a hidden folder beside the archive; a marker file makes the
correction certain, then the chunks are moved in. If the process dies in between, the next writer
finishes it. A reader in that instant meets values that do not match their digest, which
`read_analysis` refuses.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from ingest.archive import (
    CORRECTION,
    MOVES,
    READY,
    analysis_digest,
    open_archive,
    place_chunk,
    roll_forward,
    single_time,
    stage_chunk,
    write_coordinate,
    writing,
)
from ingest.archive_template import template
from mosaic_core.contract.artifacts import StoreRef
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError, InputError
from mosaic_core.contract.files import write_atomic
from mosaic_core.contract.variables import VARIABLES


def correct_analysis(archive: Path, dataset: xr.Dataset, reason: str) -> StoreRef:
    """Put `dataset` (ANALYSIS schema, one time) in the place of the archived analysis of its time.

    The record of the time keeps, under `corrections`, when, why, and the digest and source of
    what was there. The same values change nothing. Raises ArchiveError when the time is not
    archived, InputError without a reason.
    """
    if not reason.strip():
        raise InputError("a correction needs a reason", remedy="say why with --correct REASON")
    time = single_time(dataset, archive)
    digest = analysis_digest(dataset)
    with writing(archive):
        place, records = _find(archive, time)
        held = json.loads(records[place])
        if held["sha256"] != digest:
            record = {**dataset.attrs, "sha256": digest, "corrections": _history(held, reason)}
            records[place] = json.dumps(record, sort_keys=True)
            _replace(archive, dataset, place, records)
    return StoreRef(address=str(archive), sha256=digest)


def _find(archive: Path, time: np.datetime64) -> tuple[int, list[str]]:
    with open_archive(archive) as whole:
        places = np.flatnonzero(whole["time"].values == time)
        records = [str(record) for record in whole["provenance"].values]
    if places.size == 0:
        raise ArchiveError(
            "this time is not in the archive, so there is nothing to correct",
            where=f"{archive} {Cycle.from_datetime64(time)}",
            remedy=f"ingest it: `mosaic-ops ingest {Cycle.from_datetime64(time)}`",
        )
    return int(places[0]), records


def _history(held: dict[str, Any], reason: str) -> list[dict[str, str]]:
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason.strip(),
        "replaced_sha256": held["sha256"],
        "replaced_source": str(held.get("source", "")),
    }
    return [*held.get("corrections", []), entry]


def _replace(archive: Path, dataset: xr.Dataset, place: int, records: list[str]) -> None:
    folder = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}{CORRECTION}")
    staging, moves = folder / "staged", folder / MOVES
    arrays = template()["consolidated_metadata"]["metadata"]
    for variable in VARIABLES:
        stage_chunk(staging, variable.name, arrays, dataset[variable.name].values)
        place_chunk(staging, moves, variable.name, source=0, target=place)
    chunks = zarr.open_array(archive / "provenance", mode="r").chunks
    arrays["provenance"]["chunk_grid"]["configuration"]["chunk_shape"] = list(chunks)
    write_coordinate(moves, staging, "provenance", arrays, records, place)
    write_atomic(folder / READY, b"")
    roll_forward(archive, folder)
