"""Publication: data, then metadata, then the manifest, then the pointer.

Nothing that a reader could reach is ever half there: objects go to a folder whose name no reader
knows, each store's root metadata after all its data, the manifest after every object was listed
and compared, and only then the pointer moves. Killed anywhere, the same call finishes the work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError, StoreError
from mosaic_core.contract.files import is_aside
from postprocess.catalog import INDEX, tells_of, update_catalog
from postprocess.layout import chunk_name
from postprocess.manifest import (
    CLAIMS,
    MANIFEST,
    DamagedError,
    Manifest,
    ObjectRecord,
    claim_key,
    digest,
    run_path,
)
from postprocess.objects.root import IMMUTABLE, MUTABLE, ObjectRoot, open_root
from postprocess.pointer import (
    LATEST,
    advance,
    current_key,
    current_manifest,
    cycle_manifests,
    read_checked,
    require_our_version,
    standing_of,
    trusted,
)
from postprocess.viewer.site import write_viewer
from postprocess.wholeness import require_whole

_LOG = logging.getLogger(__name__)

FORECAST = "forecast.zarr"
_METADATA = "zarr.json"
_UPLOADS_AT_ONCE = 8
_BLOCK_BYTES = 1 << 20
# A sample finds a systematic fault of a client or a store; every object's size and, where the
# store tells it, MD5 are compared anyway.
_SAMPLE = 32
# Far below the life of a claim (postprocess.retention), far above what a write costs.
_RENEW_SECONDS = 600.0
_RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")


@dataclass(frozen=True)
class _Staged:
    """A file to publish and what it must be when it arrived."""

    path: Path
    record: ObjectRecord


def publish(
    staged: Path,
    root: Path | str,
    *,
    cycle: Cycle,
    run_id: str,
    now: Callable[[], datetime] | None = None,
) -> Pointer:
    """Publish the folder `staged` (forecast.zarr and whatever lies beside it) below `root`.

    `root` is a folder, s3:// or gs://. The same `run_id` goes on where a killed attempt stopped;
    a finished publication is left as it is. Returns the pointer of the cycle as it stands then:
    the run just published, or a better one of the same cycle that was there. `latest.json` moves
    to it unless it stands at a newer cycle. Available since `now`, by default the store's own
    time: a clock that is wrong here is never asked.

    StoreError: the staged folder is not a whole forecast of `cycle`. PublishError: the root
    cannot be read or written (UnreachableError), what arrived differs from what was sent, or
    another version of mosaic-ops publishes there (OtherVersionError, before anything is sent).
    """
    target = open_root(root)
    files, facts = _inventory(staged, cycle, run_id)
    require_our_version(target, LATEST, current_key(cycle), INDEX)
    path = run_path(cycle, run_id)
    claim = claim_key(cycle, run_id)
    _send(target, path, files, _Claim(target, claim))
    _compare(target, path, files)
    _read_back(target, path, files)
    moment = now() if now else _time_there(target, claim)
    manifest, sha256 = _write_manifest(target, path, files, facts, cycle, run_id, moment)
    standing = advance(target, current_key(cycle), manifest, sha256)
    advance_latest(target, standing)
    target.delete([claim])
    update_catalog(target)
    write_viewer(target)
    pointer = read_checked(target, current_key(cycle))
    if pointer is None:
        raise PublishError(
            "the cycle was removed while it was published",
            where=f"{target.address}/{path}",
            remedy="check the retention policy",
        )
    return pointer


class _Claim:
    """The note that a run is being published, written at once and anew while objects are sent."""

    def __init__(self, root: ObjectRoot, key: str) -> None:
        self._root, self._key = root, key
        self._lock, self._due = threading.Lock(), 0.0
        self.renew()

    def renew(self) -> None:
        """Write it if the last time is a while ago; from any thread."""
        with self._lock:
            if time.monotonic() < self._due:
                return
            self._root.write(self._key, b"{}\n", cache=MUTABLE)
            self._due = time.monotonic() + _RENEW_SECONDS


def _time_there(root: ObjectRoot, claim: str) -> datetime:
    """The time by the store's clock, told by a claim that is written anew."""
    root.write(claim, b"{}\n", cache=MUTABLE)
    written = (info.modified for info in root.objects(CLAIMS) if info.key == claim)
    # Another publisher of the same run may have finished and taken the claim away.
    return next(written, None) or datetime.now(UTC)


def read_pointer(root: Path | str) -> Pointer | None:
    """The pointer to the newest published cycle; None before the first.

    PublishError when the pointer is not valid.
    """
    return read_checked(open_root(root), LATEST)


def published_cycle(root: Path | str, cycle: Cycle) -> Manifest | None:
    """What is published of `cycle`; None when nothing whole is. UnreachableError when the store
    does not tell."""
    return current_manifest(open_root(root), cycle)


def settle(root: Path | str, cycle: Cycle) -> None:
    """Do what follows the pointer of a published cycle: `latest.json`, catalogue, page.

    `publish` ends with that; where a publisher was killed before, whoever comes next finishes it.
    Where nothing is to do, it is a dozen small reads.
    """
    target = open_root(root)
    standing = current_manifest(target, cycle)
    if standing is None:
        return
    advance_latest(target, standing)
    if not tells_of(target, standing):
        update_catalog(target)
    write_viewer(target)


def advance_latest(root: ObjectRoot, manifest: Manifest) -> None:
    """Move `latest.json` to `manifest` unless it stands at something better.

    A pointer that leads nowhere is set to the newest cycle there is.
    """
    found = root.read_tagged(LATEST)
    if found is not None and trusted(root, found.content, LATEST) is None:
        others = [other for _, other in cycle_manifests(root)]
        manifest = max([manifest, *others], key=standing_of)
    advance(root, LATEST, manifest, digest(root.read(f"{manifest.path}/{MANIFEST}")))


def _inventory(staged: Path, cycle: Cycle, run_id: str) -> tuple[list[_Staged], dict[str, Any]]:
    """Every file in the order of upload, and the forecast's own facts."""
    if not _RUN_ID.match(run_id):
        raise InputError(
            f"run id {run_id!r} cannot name a folder", remedy="use letters, digits, . _ and -"
        )
    facts = _forecast_facts(staged / FORECAST, cycle)
    paths = [path for path in staged.rglob("*") if path.is_file() and not is_aside(path)]
    hidden = [path for path in paths if any(part[0] == "." for part in _parts(path, staged))]
    if hidden:
        raise StoreError(
            f"unfinished work is in the folder: {hidden[0].relative_to(staged)}",
            where=str(staged),
            remedy="finish it by running the cycle again, or remove it",
        )
    with ThreadPoolExecutor() as pool:
        records = pool.map(lambda path: _record(path, staged), paths)
        files = [_Staged(path, record) for path, record in zip(paths, records, strict=True)]
    return sorted(files, key=lambda file: _upload_order(file.record.key)), facts


def _parts(path: Path, staged: Path) -> tuple[str, ...]:
    return path.relative_to(staged).parts


def _forecast_facts(store: Path, cycle: Cycle) -> dict[str, Any]:
    """Attributes, members and length of the staged forecast; StoreError unless it is whole."""
    try:
        document = json.loads((store / _METADATA).read_bytes())
        attributes: dict[str, Any] = document["attributes"]
        arrays = document["consolidated_metadata"]["metadata"]
        members = int(arrays["number"]["shape"][0])
        hours = np.frombuffer((store / "lead_time" / chunk_name(0)).read_bytes()[:-4], dtype="<i8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"no whole forecast store ({type(error).__name__}: {error})",
            where=str(store),
            remedy="run the cycle again: it goes on after the last complete lead",
        ) from None
    if attributes.get("cycle") != cycle.label:
        raise StoreError(
            f"the staged forecast is of {attributes.get('cycle')}, not of {cycle}",
            where=str(store),
            remedy="publish it under its own cycle",
        )
    require_whole(store, arrays)
    return {"attributes": attributes, "members": members, "lead_hours": int(hours[-1])}


def _record(path: Path, staged: Path) -> ObjectRecord:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            sha256.update(block)
            md5.update(block)
    return ObjectRecord(
        key=path.relative_to(staged).as_posix(),
        size=path.stat().st_size,
        sha256=sha256.hexdigest(),
        md5=md5.hexdigest(),
    )


def _upload_order(key: str) -> tuple[int, str]:
    """Data, then the metadata of arrays, then the root metadata of stores."""
    is_metadata = key.endswith(f"/{_METADATA}")
    depth_first = 2 if is_metadata and key.count("/") == 1 else int(is_metadata)
    return depth_first, key


def _send(root: ObjectRoot, path: str, files: list[_Staged], claim: _Claim) -> None:
    """Upload what is not there yet, one stage of the order after the other."""
    there = {info.key: info for info in root.objects(path)}

    def send(file: _Staged) -> None:
        claim.renew()
        info = there.get(f"{path}/{file.record.key}")
        if info is None or info.md5 != file.record.md5 or info.size != file.record.size:
            root.upload(f"{path}/{file.record.key}", file.path, cache=IMMUTABLE)

    with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="upload") as pool:
        for stage in range(3):
            group = [file for file in files if _upload_order(file.record.key)[0] == stage]
            _first_error(pool.map(send, group), pool)


def _first_error(results: Iterable[None], pool: ThreadPoolExecutor) -> None:
    """Wait for all; on the first error leave the rest undone."""
    try:
        for _ in results:
            pass
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _compare(root: ObjectRoot, path: str, files: list[_Staged]) -> None:
    """List the run's folder and compare count, sizes and digests with what was sent."""
    found = {info.key.removeprefix(f"{path}/"): info for info in root.objects(path)}
    found.pop(MANIFEST, None)
    sent = {file.record.key: file.record for file in files}
    faults = [f"{key}: not sent by this run" for key in found.keys() - sent.keys()]
    for key, record in sent.items():
        info = found.get(key)
        if info is None:
            faults.append(f"{key}: missing")
        elif info.size != record.size or info.md5 not in (None, record.md5):
            faults.append(f"{key}: {info.size} bytes {info.md5}, sent {record.size} {record.md5}")
    if faults:
        raise PublishError(
            f"{len(faults)} objects differ from what was sent, first {sorted(faults)[0]}",
            where=f"{root.address}/{path}",
            remedy="publish again, with a new run id if this one was used for other data",
        )


def _read_back(root: ObjectRoot, path: str, files: list[_Staged]) -> None:
    """Read a sample of objects back, the root metadata always, and compare their digests."""
    roots = [file for file in files if _upload_order(file.record.key)[0] == 2]
    chosen = random.Random(path).sample(files, min(_SAMPLE, len(files)))
    for record in [file.record for file in [*roots, *chosen]]:
        if digest(root.read(f"{path}/{record.key}")) != record.sha256:
            raise PublishError(
                "reads back differently from what was sent",
                where=f"{root.address}/{path}/{record.key}",
                remedy="publish again; if it persists the store is faulty",
            )


def _write_manifest(
    root: ObjectRoot,
    path: str,
    files: list[_Staged],
    facts: dict[str, Any],
    cycle: Cycle,
    run_id: str,
    now: datetime,
) -> tuple[Manifest, str]:
    """The manifest and its digest; an earlier attempt's stays if it is of the same objects."""
    key = f"{path}/{MANIFEST}"
    objects = tuple(sorted((file.record for file in files), key=lambda record: record.key))
    manifest = Manifest(
        cycle=cycle.label,
        run_id=run_id,
        path=path,
        members=facts["members"],
        lead_hours=facts["lead_hours"],
        created_at=now,
        provenance=facts["attributes"],
        objects=objects,
    )
    content = manifest.to_bytes()
    found = root.read_tagged(key)
    earlier = _parsed_or_none(found.content, f"{root.address}/{key}") if found else None
    if found is not None and earlier is not None:
        same_time = manifest.model_copy(update={"created_at": earlier.created_at})
        if earlier == same_time:
            return earlier, digest(found.content)
    if root.swap(key, content, expected=found.tag if found else None, cache=IMMUTABLE):
        return manifest, digest(content)
    # Another process publishes the same run, or this very write was answered twice.
    now_there = root.read(key)
    return Manifest.from_bytes(now_there, f"{root.address}/{key}"), digest(now_there)


def _parsed_or_none(content: bytes, where: str) -> Manifest | None:
    try:
        return Manifest.from_bytes(content, where)
    except DamagedError as error:
        _LOG.warning("replacing a damaged manifest: %s", error)
        return None
