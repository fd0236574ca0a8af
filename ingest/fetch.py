"""Fetch one analysis from a mirror: only the wanted messages, checked, resumable, idempotent.

Files in the target folder: `analysis.grib2` (82 messages, in the order of the source file),
`statics.grib2` (land mask and orography, where the source has them), `analysis.index` (as
served), `manifest.json` (written last: with it the analysis is complete) and,
while a download is under way, `parts/`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ingest.assembly import Parts, assemble
from ingest.index import ByteRange
from ingest.locking import exclusive
from ingest.opendata_client import retrieve
from ingest.readiness import Inventory, is_ready, take_inventory, wait_until_ready
from ingest.sources import AnalysisLocation, Source, analysis_files
from ingest.transfer import Mirror, MultiRangeRefused, TransferPolicy, open_mirror, public
from mosaic_core.contract.artifacts import FetchedFile, FetchManifest
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, SourceError
from mosaic_core.contract.files import sha256_file, write_atomic

__all__ = ["fetch_analysis", "is_ready", "verified_manifest", "wait_until_ready"]

MANIFEST, DATA, INDEX = "manifest.json", "analysis.grib2", "analysis.index"
STATICS = "statics.grib2"
_LOCK_WAIT_SECONDS = 1800.0
# A real step-0 file needs 20 ranges: three requests.
RANGES_AT_ONCE = 8

Progress = Callable[[int, int], None]


def fetch_analysis(
    cycle: Cycle,
    source: Source,
    directory: Path,
    *,
    progress: Progress | None = None,
    policy: TransferPolicy | None = None,
    step: int = 0,
    first_seen: datetime | None = None,
) -> FetchManifest:
    """The analysis of `cycle` in `directory`, from `source` or as it lies there, verified.

    A folder whose files have the sizes and digests of its manifest is used as it is; a download
    that broke off goes on where it stopped. `progress` gets (bytes so far, bytes in all).
    `step` takes a forecast step valid `step` hours after the cycle instead; `first_seen` is
    recorded in the manifest.

    Raises NotYetAvailable, SourceError (the mirror failed or refused) or DataError (what came is
    not the cycle's 82 fields).
    """
    with (
        exclusive(directory / ".lock", wait_seconds=_LOCK_WAIT_SECONDS, what=str(directory)),
        _naming_full_disk(directory),
    ):
        held = verified_manifest(directory, cycle, step)
        if held is not None:
            return held
        location = analysis_files(cycle, source, step=step)
        return asyncio.run(
            _fetch(
                location,
                source,
                directory,
                progress or _silent,
                policy or TransferPolicy(),
                first_seen,
            )
        )


def _silent(done: int, total: int) -> None:
    """No progress report."""
    del done, total


@contextmanager
def _naming_full_disk(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(
            "no space left on the disk",
            where=str(directory),
            remedy="free about 200 MB and run again: what was fetched is kept",
        ) from None


def verified_manifest(directory: Path, cycle: Cycle, step: int = 0) -> FetchManifest | None:
    """The manifest in `directory` if it is this cycle's and every file is as it says, else None."""
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = FetchManifest.read(path)
    except DataError:
        return None
    of_step = f"-{step}h-" in manifest.data_url
    whole = all(_is_whole(directory / file.name, file) for file in manifest.files)
    return manifest if manifest.cycle == cycle.id and of_step and whole else None


def _is_whole(path: Path, file: FetchedFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_file(path) == file.sha256


async def _fetch(
    location: AnalysisLocation,
    source: Source,
    directory: Path,
    progress: Progress,
    policy: TransferPolicy,
    first_seen: datetime | None,
) -> FetchManifest:
    (directory / MANIFEST).unlink(missing_ok=True)
    async with open_mirror(source.root, policy) as mirror:
        found = await take_inventory(mirror, location)
        digest = hashlib.sha256(found.index).hexdigest()
        parts = Parts(directory / "parts", found.identity, digest)
        spans = found.spans
        if source.own_client:
            spans = await asyncio.to_thread(retrieve, found, source.root, parts, policy)
        else:
            await _download(mirror, found, parts, progress, several=source.multi_range)
    try:
        data = [assemble(parts, spans, found.rows.values(), location, directory / DATA)]
        if found.statics:
            kept = directory / STATICS
            data.append(assemble(parts, spans, found.statics.values(), location, kept))
    except DataError:
        parts.remove()
        raise
    manifest = _record(found, directory, data, digest, first_seen)
    parts.remove()
    return manifest


async def _download(
    mirror: Mirror, found: Inventory, parts: Parts, progress: Progress, *, several: bool
) -> None:
    """Complete every part; `several` ranges at once where the mirror is known to give them."""
    total = sum(span.length for span in found.spans)
    done = parts.held(found.spans)
    progress(done, total)

    def arrived(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    url, identity = found.location.data_url, found.identity
    size = RANGES_AT_ONCE if several else 1
    groups = [found.spans[at : at + size] for at in range(0, len(found.spans), size)]

    async def read(spans: Sequence[ByteRange]) -> None:
        try:
            if len(spans) > 1:
                await mirror.read_ranges(url, spans, identity, parts.path, arrived)
                return
        except MultiRangeRefused:
            pass
        for span in spans:
            await mirror.read_range(url, span, identity, parts.path(span), arrived)

    try:
        async with asyncio.TaskGroup() as tasks:
            for spans in groups:
                tasks.create_task(read(spans))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _record(
    found: Inventory,
    directory: Path,
    data: list[FetchedFile],
    index_sha256: str,
    first_seen: datetime | None,
) -> FetchManifest:
    write_atomic(directory / INDEX, found.index)
    index = FetchedFile(name=INDEX, size=len(found.index), sha256=index_sha256)
    location = found.location
    manifest = FetchManifest(
        cycle=location.cycle.id,
        source=location.source,
        era=location.era,
        data_url=public(location.data_url),
        index_url=public(location.index_url),
        etag=found.identity.etag,
        last_modified=found.identity.last_modified,
        first_seen=first_seen,
        fetched_at=datetime.now(UTC),
        files=(*data, index),
    )
    manifest.write(directory / MANIFEST)
    return manifest
