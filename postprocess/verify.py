"""Does a published store hold what its manifest says? Finds bit rot, losses and strays.

What the store does not give is told apart from what is damaged: an outage is no loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.catalog import INDEX, build_index, read_index
from postprocess.manifest import (
    MANIFEST,
    DamagedError,
    Manifest,
    ObjectRecord,
    OtherVersionError,
    digest,
)
from postprocess.objects.root import (
    MissingObjectError,
    ObjectRoot,
    UnreachableError,
    open_root,
)
from postprocess.pointer import CURRENT, LATEST, read_checked
from postprocess.pruned import checked_note, pruned_key
from postprocess.stac import stac_documents
from postprocess.viewer.site import LIST, page_files

_READS_AT_ONCE = 8
_UNTRUSTED = (DamagedError, OtherVersionError, InputError)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Fault:
    """One object that is not what it must be: its key below the root, and what is wrong.

    `unread`: the store did not give it, so it may well be whole.
    """

    key: str
    problem: str
    unread: bool = False


@dataclass(frozen=True)
class Verification:
    """What was looked at, and every fault found."""

    address: str
    objects: int
    bytes: int
    faults: tuple[Fault, ...]


def verify_store(address: str) -> Verification:
    """Check everything below `address` against the manifests, reading every byte.

    `address` is a root (the pointers and every cycle's current run), a run's folder, or one store
    in it. InputError when there is nothing published at `address`, UnreachableError when the store
    does not list what there is.
    """
    found = _runs_at(address.rstrip("/"))
    faults = list(found.faults)
    count = size = 0
    for path, sha256 in found.runs:
        manifest, damaged = _manifest(found.root, path, sha256)
        faults += damaged
        if manifest is None:
            continue
        records, damaged = _expected(found.root, manifest, found.store)
        faults += damaged
        faults += _object_faults(found.root, path, records, found.store)
        count += len(records)
        size += sum(record.size for record in records)
    return Verification(address, count, size, tuple(sorted(faults, key=lambda fault: fault.key)))


@dataclass(frozen=True)
class _Found:
    """A root, the runs to verify in it (path, digest of the manifest if a pointer tells it)."""

    root: ObjectRoot
    runs: list[tuple[str, str | None]]
    faults: list[Fault]
    store: str = ""


def _runs_at(address: str) -> _Found:
    above, _, store = address.rpartition("/")
    if not os.path.isfile(address.removeprefix("file://")):
        root = open_root(address)
        if root.folders("cycles"):
            return _whole_root(root)
        if _has(root, MANIFEST):
            return _one_run(address)
    if above and _has(open_root(above), MANIFEST):
        found = _one_run(above)
        return _Found(found.root, found.runs, found.faults, store)
    raise InputError(
        "no manifest.json and no cycles here",
        where=address,
        remedy="give the root, a run's folder (cycles/<cycle>/<run>) or a store in it",
    )


def _has(root: ObjectRoot, key: str) -> bool:
    return root.read_tagged(key) is not None


def _one_run(address: str) -> _Found:
    """The run at `address`, seen from its root so that its cycle's pointer counts too."""
    parts = address.rsplit("/", 3)
    if len(parts) < 4 or parts[1] != "cycles":
        return _Found(open_root(address), [("", None)], [])
    root, path = open_root(parts[0] or "/"), "/".join(parts[1:])
    pointer, faults = _pointer(root, f"cycles/{parts[2]}/{CURRENT}")
    told = pointer.manifest_sha256 if pointer and pointer.path == path else None
    return _Found(root, [(path, told)], faults)


def _whole_root(root: ObjectRoot) -> _Found:
    faults: list[Fault] = []
    pointers: list[Pointer] = []
    for name in root.folders("cycles"):
        pointer, damaged = _pointer(root, f"cycles/{name}/{CURRENT}")
        faults += damaged
        if pointer is not None:
            pointers.append(pointer)
    silent = any(fault.unread for fault in faults)
    faults += _latest_faults(root, pointers, silent)
    faults += _catalog_faults(root)
    faults += _page_faults(root)
    return _Found(root, [(each.path, each.manifest_sha256) for each in pointers], faults)


def _latest_faults(root: ObjectRoot, pointers: list[Pointer], silent: bool) -> list[Fault]:
    """`latest.json` against the newest cycle that is whole as far as its manifest; where the store
    is `silent` about a cycle, nobody knows which that is."""
    latest, faults = _pointer(root, LATEST)
    newest = None if silent else _newest_valid(root, pointers)
    if faults or newest is None:
        return faults
    if latest is None:
        return [Fault(LATEST, f"missing, {newest.path} is published")]
    if (latest.path, latest.manifest_sha256) != (newest.path, newest.manifest_sha256):
        return [Fault(LATEST, f"names {latest.path}, the newest cycle's run is {newest.path}")]
    return []


def _newest_valid(root: ObjectRoot, pointers: list[Pointer]) -> Pointer | None:
    """Of the cycles' pointers (oldest first); None if there is none, or the store does not tell."""
    for pointer in reversed(pointers):
        _, faults = _manifest(root, pointer.path, pointer.manifest_sha256)
        if not faults:
            return pointer
        if any(fault.unread for fault in faults):
            return None
    return None


def _catalog_faults(root: ObjectRoot) -> list[Fault]:
    """The index and the STAC documents against what the pointers and manifests say."""
    index, faults = _told(INDEX, lambda: read_index(root))
    if index is None:
        return faults
    wanted, _ = _told(INDEX, lambda: build_index(root))  # a cycle not given is told by its pointer
    if wanted not in (None, index):
        faults.append(Fault(INDEX, "is not what the cycles say"))
    for key, content in stac_documents(index).items():
        faults += _stac_faults(root, key, content)
    return faults


def _stac_faults(root: ObjectRoot, key: str, content: bytes) -> list[Fault]:
    found, faults = _told(key, lambda: root.read(key))
    if found == content or any(fault.unread for fault in faults):
        return faults
    return [Fault(key, "is not what the index says")]


def _page_faults(root: ObjectRoot) -> list[Fault]:
    """The files of the page in the browser against their list."""
    records, faults = _told(LIST, lambda: page_files(root))
    problems = [_problem(root, record.key, record) for record in records or ()]
    return [*faults, *filter(None, problems)]


def _pointer(root: ObjectRoot, key: str) -> tuple[Pointer | None, list[Fault]]:
    def read() -> Pointer | None:
        pointer = read_checked(root, key)
        if pointer is not None:
            Cycle.parse(pointer.cycle)
        return pointer

    return _told(key, read)


def _manifest(
    root: ObjectRoot, path: str, sha256: str | None
) -> tuple[Manifest | None, list[Fault]]:
    key = _joined(path, MANIFEST)
    content, faults = _told(key, lambda: root.read(key))
    if content is None:
        return None, faults
    manifest, faults = _told(key, lambda: Manifest.from_bytes(content, key))
    if manifest is not None and sha256 is not None and digest(content) != sha256:
        return manifest, [Fault(key, "is not the manifest that the pointer names")]
    return manifest, faults


def _told(key: str, read: Callable[[], _Read]) -> tuple[_Read | None, list[Fault]]:
    """What `read` gives, or the fault that kept it from that."""
    try:
        return read(), []
    except MissingObjectError:
        return None, [Fault(key, "missing")]
    except UnreachableError as error:
        return None, [Fault(key, f"could not be read: {error.what}", unread=True)]
    except _UNTRUSTED as error:
        return None, [Fault(key, error.what)]


def _expected(
    root: ObjectRoot, manifest: Manifest, store: str
) -> tuple[list[ObjectRecord], list[Fault]]:
    """Records of what must be there: of one store if told, without what retention took away."""
    note, faults = _told(pruned_key(manifest), lambda: checked_note(root, manifest))
    gone = set(note.announced) if note else _absent(root, manifest)
    return [
        record
        for record in manifest.objects
        if _belongs(record.key, store) and record.key.split("/", 1)[0] not in gone
    ], faults


def _absent(root: ObjectRoot, manifest: Manifest) -> set[str]:
    """Stores of which nothing is there."""
    listed = {info.key for info in root.objects(manifest.path)}
    there = {key.removeprefix(f"{manifest.path}/").split("/", 1)[0] for key in listed}
    return set(manifest.stores) - there


def _belongs(key: str, store: str) -> bool:
    return not store or key == store or key.startswith(f"{store}/")


def _object_faults(
    root: ObjectRoot, path: str, records: list[ObjectRecord], store: str
) -> Iterator[Fault]:
    listed, faults = _told(_joined(path, store), lambda: root.objects(_joined(path, store)))
    yield from faults
    wanted = {_joined(path, record.key) for record in records}
    for key in sorted({info.key for info in listed or ()} - wanted - {_joined(path, MANIFEST)}):
        yield Fault(key, "is not in the manifest")
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="verify") as pool:
        yield from filter(
            None,
            pool.map(lambda record: _problem(root, _joined(path, record.key), record), records),
        )


def _problem(root: ObjectRoot, key: str, record: ObjectRecord) -> Fault | None:
    content, faults = _told(key, lambda: root.read(key))
    if content is None:
        return faults[0]
    if len(content) != record.size:
        return Fault(key, f"has {len(content)} bytes, the manifest says {record.size}")
    if digest(content) != record.sha256:
        return Fault(key, "content differs from its SHA-256")
    return None


def _joined(path: str, key: str) -> str:
    return "/".join(part for part in (path, key) if part)
