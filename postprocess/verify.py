"""Does a published store hold what its manifest says? Finds bit rot, losses and strays."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError
from postprocess.catalog import INDEX, build_index, read_index
from postprocess.manifest import MANIFEST, Manifest, ObjectRecord, digest
from postprocess.objects.root import MissingObjectError, ObjectRoot, open_root
from postprocess.pointer import CURRENT, LATEST, read_checked
from postprocess.pruned import checked_note, pruned_key
from postprocess.stac import stac_documents
from postprocess.viewer.site import LIST, page_files

_READS_AT_ONCE = 8


@dataclass(frozen=True)
class Fault:
    """One object that is not what it must be: its key below the root, and what is wrong."""

    key: str
    problem: str


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
    in it. InputError when there is nothing published at `address`.
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
    root = open_root(address)
    if root.folders("cycles"):
        return _whole_root(root)
    above, _, store = address.rpartition("/")
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
    latest, faults = _pointer(root, LATEST)
    runs: list[tuple[str, str | None]] = []
    for name in root.folders("cycles"):
        pointer, damaged = _pointer(root, f"cycles/{name}/{CURRENT}")
        faults += damaged
        if pointer is not None:
            runs.append((pointer.path, pointer.manifest_sha256))
    faults += _catalog_faults(root)
    faults += _page_faults(root)
    if latest is not None and (latest.path, latest.manifest_sha256) not in runs:
        faults.append(Fault(LATEST, "names a run that is not the current one of its cycle"))
    return _Found(root, runs, faults)


def _catalog_faults(root: ObjectRoot) -> list[Fault]:
    """The index and the STAC documents against what the pointers and manifests say."""
    try:
        index = read_index(root)
    except PublishError as error:
        return [Fault(INDEX, error.what)]
    faults = [] if index == build_index(root) else [Fault(INDEX, "is not what the cycles say")]
    there = {info.key for info in root.objects("stac")}
    return faults + [
        Fault(key, "is not what the index says")
        for key, content in stac_documents(index).items()
        if key not in there or root.read(key) != content
    ]


def _page_faults(root: ObjectRoot) -> list[Fault]:
    """The files of the page in the browser against their list."""
    try:
        problems = {record.key: _problem(root, record.key, record) for record in page_files(root)}
    except PublishError as error:
        return [Fault(LIST, error.what)]
    return [Fault(key, problem) for key, problem in problems.items() if problem]


def _pointer(root: ObjectRoot, key: str) -> tuple[Pointer | None, list[Fault]]:
    try:
        pointer = read_checked(root, key)
        if pointer is not None:
            Cycle.parse(pointer.cycle)
    except (PublishError, InputError) as error:
        return None, [Fault(key, error.what)]
    return pointer, []


def _manifest(
    root: ObjectRoot, path: str, sha256: str | None
) -> tuple[Manifest | None, list[Fault]]:
    key = _joined(path, MANIFEST)
    try:
        content = root.read(key)
        manifest = Manifest.from_bytes(content, key)
    except MissingObjectError:
        return None, [Fault(key, "missing")]
    except PublishError as error:
        return None, [Fault(key, error.what)]
    if sha256 is not None and digest(content) != sha256:
        return manifest, [Fault(key, "is not the manifest that the pointer names")]
    return manifest, []


def _expected(
    root: ObjectRoot, manifest: Manifest, store: str
) -> tuple[list[ObjectRecord], list[Fault]]:
    """Records of what must be there: of one store if told, without what retention took away."""
    faults = []
    try:
        gone = set(checked_note(root, manifest).announced)
    except PublishError as error:
        faults = [Fault(pruned_key(manifest), error.what)]
        listed = {info.key for info in root.objects(manifest.path)}
        there = {key.removeprefix(f"{manifest.path}/").split("/", 1)[0] for key in listed}
        gone = set(manifest.stores) - there
    return [
        record
        for record in manifest.objects
        if _belongs(record.key, store) and record.key.split("/", 1)[0] not in gone
    ], faults


def _belongs(key: str, store: str) -> bool:
    return not store or key == store or key.startswith(f"{store}/")


def _object_faults(
    root: ObjectRoot, path: str, records: list[ObjectRecord], store: str
) -> Iterator[Fault]:
    listed = {info.key for info in root.objects(_joined(path, store))}
    wanted = {_joined(path, record.key) for record in records}
    for key in sorted(listed - wanted - {_joined(path, MANIFEST)}):
        yield Fault(key, "is not in the manifest")
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="verify") as pool:
        problems = pool.map(
            lambda record: _problem(root, _joined(path, record.key), record), records
        )
        for record, problem in zip(records, problems, strict=True):
            if problem:
                yield Fault(_joined(path, record.key), problem)


def _problem(root: ObjectRoot, key: str, record: ObjectRecord) -> str:
    try:
        content = root.read(key)
    except MissingObjectError:
        return "missing"
    if len(content) != record.size:
        return f"has {len(content)} bytes, the manifest says {record.size}"
    return "" if digest(content) == record.sha256 else "content differs from its SHA-256"


def _joined(path: str, key: str) -> str:
    return "/".join(part for part in (path, key) if part)
