"""The archive of analyses on 1.5 degrees: one Zarr v3 store that grows by one time.

What a reader sees is the root `zarr.json`, in which the metadata of all arrays is consolidated.
An append puts the new chunk files in place, rewrites the last chunk of `time` and `provenance`
(values beyond the visible length are ignored by Zarr), and then replaces the root file: in that
instant all variables grow together. A process that dies before leaves files that nobody sees and
that the next append overwrites. One writer at a time, by a lock beside the store.

Times stand in the order of their arrival; a late analysis of an earlier cycle comes at the end.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from ingest.archive_template import GROWING_COORDINATES, Metadata, template
from ingest.locking import exclusive
from mosaic_core.contract.artifacts import StoreRef
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError, DataError
from mosaic_core.contract.files import write_atomic
from mosaic_core.contract.schema import ANALYSIS
from mosaic_core.contract.variables import VARIABLES

_LOCK_WAIT_SECONDS = 120.0
_EPOCH = np.datetime64("1970-01-01", "h")
_ROOT = "zarr.json"
# A correction in the making: a hidden folder beside the archive, complete once READY is in it.
CORRECTION, MOVES, READY = ".correction", "moves", "ready"


def append_analysis(archive: Path, dataset: xr.Dataset) -> StoreRef:
    """Add one analysis (ANALYSIS schema, one time); its attributes become its provenance.

    Adding the same analysis again changes nothing. Returns the address and the digest of the
    values. Raises ArchiveError when the time is there with other values (see
    `ingest.correction`), when the store is not such an archive, or when the disk is full; then
    the archive is as it was.
    """
    time = single_time(dataset, archive)
    digest = analysis_digest(dataset)
    with writing(archive):
        held = provenance(archive).get(time) if archive.exists() else None
        if held is None:
            _add(archive, dataset, time, {**dataset.attrs, "sha256": digest})
        elif held["sha256"] != digest:
            raise ArchiveError(
                "the archive holds other values for this time "
                f"(from {held.get('source', 'an unknown source')})",
                where=f"{archive} {Cycle.from_datetime64(time)}",
                remedy="replace it on purpose: `mosaic-ops ingest CYCLE --correct REASON`",
            )
    return StoreRef(address=str(archive), sha256=digest)


def archived_times(archive: Path) -> NDArray[np.datetime64]:
    """The valid times in the archive, ascending; empty when there is no archive."""
    if not archive.exists():
        return np.array([], dtype="datetime64[ns]")
    return np.sort(_visible_times(archive))


def provenance(archive: Path) -> dict[np.datetime64, Metadata]:
    """For each archived time its record: source, digests, gate verdict, `sha256` of the values."""
    with open_archive(archive) as dataset:
        times, records = dataset["time"].values, dataset["provenance"].values
        return {time: json.loads(str(record)) for time, record in zip(times, records, strict=True)}


def open_archive(archive: Path) -> xr.Dataset:
    """The whole archive, lazily, in order of arrival; ArchiveError when there is none."""
    if not (archive / _ROOT).exists():
        raise ArchiveError(
            "no archive of analyses here",
            where=str(archive),
            remedy="fetch an analysis first: `mosaic-ops ingest CYCLE`",
        )
    return xr.open_zarr(archive, chunks=None, consolidated=True)


def read_analysis(archive: Path, time: np.datetime64) -> xr.Dataset:
    """One archived analysis, in memory, its values proved equal to the digest of its record."""
    with open_archive(archive) as whole:
        places = np.flatnonzero(whole["time"].values == time)
        if places.size == 0:
            raise ArchiveError(
                "this time is not in the archive",
                where=f"{archive} {Cycle.from_datetime64(time)}",
                remedy=f"fetch it: `mosaic-ops ingest {Cycle.from_datetime64(time)}`",
            )
        dataset = whole.isel(time=places[:1]).load()
    record = json.loads(str(dataset["provenance"].values[0]))
    if analysis_digest(dataset) != record["sha256"]:
        raise ArchiveError(
            "the stored values do not match their digest",
            where=f"{archive} {Cycle.from_datetime64(time)}",
            remedy="the store is damaged: restore it, or ingest this cycle with --correct",
        )
    return dataset


def analysis_digest(dataset: xr.Dataset) -> str:
    """Hex SHA-256 of the ten variables' float32 little-endian bytes, in the contract's order."""
    digest = hashlib.sha256()
    for variable in VARIABLES:
        values = np.ascontiguousarray(dataset[variable.name].values, dtype="<f4")
        digest.update(values.data)
    return digest.hexdigest()


@contextmanager
def writing(archive: Path) -> Iterator[None]:
    """Be the only writer, on an archive where no earlier write is left half done.

    A full disk becomes an ArchiveError.
    """
    lock = archive.with_name(f".{archive.name}.lock")
    with exclusive(lock, wait_seconds=_LOCK_WAIT_SECONDS, what=str(archive)):
        for leftover in archive.parent.glob(f".{archive.name}.*.staging"):
            shutil.rmtree(leftover)
        for correction in archive.parent.glob(f".{archive.name}.*{CORRECTION}"):
            roll_forward(archive, correction)
        if archive.exists():
            publish_metadata(archive, _guarded_metadata(archive))
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ArchiveError(
                "no space left on the disk; the archive is as it was",
                where=str(archive),
                remedy="free some space (about 10 MB for one analysis) and run again",
            ) from None


def single_time(dataset: xr.Dataset, archive: Path) -> np.datetime64:
    """The time of an analysis that may be archived; DataError for anything else."""
    ANALYSIS.validate(dataset, where=f"analysis for {archive}")
    if dataset.sizes["time"] != 1:
        raise DataError(
            f"{dataset.sizes['time']} times, expected one",
            where=f"analysis for {archive}",
            remedy="append them one by one",
        )
    time: np.datetime64 = dataset["time"].values[0].astype("datetime64[ns]")
    damaged = [v.name for v in VARIABLES if not np.isfinite(dataset[v.name].values).all()]
    if damaged:
        raise DataError(
            f"values that are not finite in {', '.join(damaged)}",
            where=f"analysis of {Cycle.from_datetime64(time)}",
            remedy="take this analysis from another source",
        )
    return time


def _guarded_metadata(archive: Path) -> Metadata:
    """The root metadata if it is the template's with more times, else ArchiveError."""
    where = str(archive)
    try:
        found = json.loads((archive / _ROOT).read_bytes())
        arrays = found["consolidated_metadata"]["metadata"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArchiveError(
            f"not an archive of analyses ({type(error).__name__}: {error})",
            where=where,
            remedy="give another path, or move that folder away",
        ) from None
    expected = template()
    for name, array in expected["consolidated_metadata"]["metadata"].items():
        held = arrays.get(name, {})
        if "time" in array["dimension_names"] and held.get("shape"):
            array["shape"][0] = held["shape"][0]
        if held != array:
            raise ArchiveError(
                f"the structure of {name} is not this version's",
                where=where,
                remedy="begin a new archive beside it and re-ingest",
            )
    return found


def _add(archive: Path, dataset: xr.Dataset, time: np.datetime64, record: Metadata) -> None:
    staging = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}.staging")
    staging.mkdir(parents=True)
    try:
        if archive.exists():
            _append(archive, staging, dataset, time, record)
            return
        fresh = staging / archive.name
        _create(fresh)
        _append(fresh, staging / "chunks", dataset, time, record)
        os.replace(fresh, archive)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _create(store: Path) -> None:
    """An archive without a time: metadata and the three fixed axes."""
    metadata = template()
    publish_metadata(store, metadata)
    for name, values in ANALYSIS.fixed.items():
        zarr.open_array(store / name, mode="r+")[...] = values


def _append(
    store: Path, staging: Path, dataset: xr.Dataset, time: np.datetime64, record: Metadata
) -> None:
    metadata = json.loads((store / _ROOT).read_bytes())
    arrays = metadata["consolidated_metadata"]["metadata"]
    count = arrays["time"]["shape"][0]
    for variable in VARIABLES:
        stage_chunk(staging, variable.name, arrays, dataset[variable.name].values)
        place_chunk(staging, store, variable.name, source=0, target=count)
    hours = (time.astype("datetime64[h]") - _EPOCH).astype(np.int64)
    text = json.dumps(record, sort_keys=True)
    for name, value in zip(GROWING_COORDINATES, (hours, text), strict=True):
        held = np.asarray(zarr.open_array(store / name, mode="r")[:count]).tolist()
        write_coordinate(store, staging, name, arrays, [*held, value], count)
    for array in arrays.values():
        if "time" in array["dimension_names"]:
            array["shape"][0] = count + 1
    publish_metadata(store, metadata)


def stage_chunk(
    staging: Path, name: str, arrays: Metadata, values: NDArray[Any] | list[Any]
) -> None:
    """Encode `values` into `staging` as the archive's array `name`, with its own length."""
    length = len(values)
    shaped = {**arrays[name], "shape": [length, *arrays[name]["shape"][1:]]}
    write_atomic(staging / name / _ROOT, json.dumps(shaped).encode())
    whole = np.asarray(values, dtype=object) if shaped["data_type"] == "string" else values
    zarr.open_array(staging / name, mode="r+")[...] = whole


def place_chunk(staging: Path, store: Path, name: str, *, source: int, target: int) -> None:
    """Move the staged chunk `source` along time into the store as chunk `target`."""
    folder = staging / name / "c" / str(source)
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else [folder]
    for file in files:
        place = store / name / "c" / str(target) / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(file, place)


def write_coordinate(
    store: Path, staging: Path, name: str, arrays: Metadata, values: list[Any], place: int
) -> None:
    """Replace the chunk of a coordinate along time that holds `values[place]`."""
    stage_chunk(staging, name, arrays, values)
    per_chunk = arrays[name]["chunk_grid"]["configuration"]["chunk_shape"][0]
    chunk = place // per_chunk
    place_chunk(staging, store, name, source=chunk, target=chunk)


def roll_forward(archive: Path, correction: Path) -> None:
    """Finish a correction that was complete when its writer died, or throw away half of one."""
    if (correction / READY).exists():
        moves = correction / MOVES
        for file in sorted(path for path in moves.rglob("*") if path.is_file()):
            os.replace(file, archive / file.relative_to(moves))
    shutil.rmtree(correction)


def publish_metadata(store: Path, metadata: Metadata) -> None:
    """Make `metadata` what readers see: the root file, then the copies beside each array.

    The copies serve readers that pass over consolidated metadata; a crash between leaves them
    behind the root until the next write.
    """
    root = json.dumps(metadata, indent=1, sort_keys=True).encode()
    if not (store / _ROOT).exists() or (store / _ROOT).read_bytes() != root:
        write_atomic(store / _ROOT, root)
    for name, array in metadata["consolidated_metadata"]["metadata"].items():
        copy = json.dumps(array, indent=1, sort_keys=True).encode()
        path = store / name / _ROOT
        if not path.exists() or path.read_bytes() != copy:
            write_atomic(path, copy)


def _visible_times(archive: Path) -> NDArray[np.datetime64]:
    with open_archive(archive) as dataset:
        return dataset["time"].values.astype("datetime64[ns]")
