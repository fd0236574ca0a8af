"""The catalogue of a root: `index.json`, and a static STAC catalogue beside it.

Both are derived from the pointers and manifests and can be made again at any time. An update
reuses the entries of cycles whose pointer has not moved, so it costs one small read per cycle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from mosaic_core.contract.artifacts import Pointer, Sha256
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError
from mosaic_core.contract.files import write_atomic
from postprocess.manifest import (
    SCHEMA_VERSION,
    DamagedError,
    Manifest,
    OtherVersionError,
    Record,
    require_version,
)
from postprocess.objects.root import MUTABLE, MissingObjectError, ObjectRoot, UnreachableError
from postprocess.pointer import current_key, manifest_of, read_checked
from postprocess.pruned import Pruned, read_pruned
from postprocess.stac import stac_documents, write_stac

_LOG = logging.getLogger(__name__)

INDEX = "index.json"
_TRIES = 30
_READS_AT_ONCE = 16
_PLOTS = (".png", ".svg")
_UNTRUSTED = (DamagedError, OtherVersionError, MissingObjectError, InputError)


class StoreEntry(Record):
    """A store or file of a run. `available` turns false when retention announces its removal."""

    name: str
    kind: Literal["zarr", "file"]
    href: str
    bytes: int
    available: bool


class CycleEntry(Record):
    """The current run of one cycle; hrefs are relative to the root.

    `init_time` is what the forecast starts from, `available_at` when readers could first have it,
    `modified_at` when anything about it last changed. `health` names unhealthy members; empty is
    healthy. `input_analyses` has a line for each state it starts from: time, analysis or a forecast
    in its place, source, digest, and the verdict of the checks.
    """

    cycle: str
    run_id: str
    href: str
    manifest_sha256: Sha256
    init_time: datetime
    available_at: datetime
    modified_at: datetime
    members: int
    lead_hours: int
    bytes: int
    model_variant: str
    weights_sha256: str
    code_version: str
    comment: str
    health: tuple[str, ...]
    input_analyses: tuple[str, ...] = ()
    stores: tuple[StoreEntry, ...]
    plots: tuple[str, ...]


class Index(Record):
    """`index.json`: every published cycle, the newest first."""

    schema_version: int = SCHEMA_VERSION
    latest: str | None
    cycles: tuple[CycleEntry, ...] = Field(default=())


def read_index(root: ObjectRoot) -> Index:
    """The catalogue as it stands; empty before the first. DamagedError when it is not valid."""
    found = root.read_tagged(INDEX)
    if found is None:
        return Index(latest=None)
    return Index.from_bytes(found.content, f"{root.address}/{INDEX}")


def update_catalog(root: ObjectRoot, *, rebuild: bool = False) -> Index:
    """Bring `index.json` and the STAC catalogue up to date with the pointers.

    `rebuild` trusts nothing of the index that is there. A cycle that the store does not give now
    keeps the entry that it has; UnreachableError where it has none. PublishError when other
    publishers win every time; OtherVersionError when the index is of another schema version.
    """
    for _ in range(_TRIES):
        found = root.read_tagged(INDEX)
        if found is not None:
            require_version(found.content, f"{root.address}/{INDEX}")
        known = {} if rebuild or found is None else _known(found.content, root)
        index = build_index(root, known)
        content = index.to_bytes()
        unchanged = found is not None and found.content == content
        expected = found.tag if found else None
        if unchanged or root.swap(INDEX, content, expected=expected, cache=MUTABLE):
            write_stac(root, index)
            now = root.read_tagged(INDEX)
            if now is not None and now.content == content:
                return index
    raise PublishError(
        f"lost the race for the index {_TRIES} times",
        where=f"{root.address}/{INDEX}",
        remedy="see who else publishes here; then `mosaic-ops catalog --rebuild`",
    )


def tells_of(root: ObjectRoot, manifest: Manifest) -> bool:
    """Whether the index and the STAC catalogue hold this run; damaged documents hold nothing."""
    try:
        index = read_index(root)
    except DamagedError:
        return False
    known = {(entry.cycle, entry.run_id, entry.available_at) for entry in index.cycles}
    if (manifest.cycle, manifest.run_id, manifest.created_at) not in known:
        return False
    documents = stac_documents(index, only=manifest.cycle)
    found = {key: root.read_tagged(key) for key in documents}
    return all(each is not None and each.content == documents[key] for key, each in found.items())


def build_index(root: ObjectRoot, known: dict[str, CycleEntry] | None = None) -> Index:
    """The index that the pointers and manifests say; entries in `known`, by manifest digest, are
    taken as they are. UnreachableError when the store does not give a cycle that is not known."""
    names = reversed(root.folders("cycles"))
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="catalog") as pool:
        found = pool.map(lambda name: _current_entry(root, name, known or {}), names)
        entries = tuple(entry for entry in found if entry is not None)
    return Index(latest=entries[0].cycle if entries else None, cycles=entries)


def _current_entry(root: ObjectRoot, name: str, known: dict[str, CycleEntry]) -> CycleEntry | None:
    try:
        pointer = _pointer(root, name)
        if pointer is None:
            return None
        return known.get(pointer.manifest_sha256) or _entry(root, pointer)
    except UnreachableError as error:
        before = [entry for entry in known.values() if entry.href.startswith(f"cycles/{name}/")]
        if not before:
            raise
        _LOG.warning("kept in the catalogue as it was: %s", error)
        return before[0]


def _known(content: bytes, root: ObjectRoot) -> dict[str, CycleEntry]:
    try:
        index = Index.from_bytes(content, f"{root.address}/{INDEX}")
    except DamagedError as error:
        _LOG.warning("making the index again: %s", error)
        return {}
    return {entry.manifest_sha256: entry for entry in index.cycles}


def _pointer(root: ObjectRoot, name: str) -> Pointer | None:
    try:
        return read_checked(root, current_key(Cycle.parse(name)))
    except _UNTRUSTED as error:
        _LOG.warning("left out of the catalogue: %s", error)
        return None


def _entry(root: ObjectRoot, pointer: Pointer) -> CycleEntry | None:
    try:
        manifest = manifest_of(root, pointer)
    except _UNTRUSTED as error:
        _LOG.warning("left out of the catalogue: %s", error)
        return None
    return describe(manifest, pointer.manifest_sha256, read_pruned(root, manifest))


def describe(manifest: Manifest, manifest_sha256: str, note: Pruned) -> CycleEntry:
    """The catalogue's entry of one run, given what retention says about it."""
    text = _text_of(manifest)
    announced = tuple(note.announced.values())
    return CycleEntry(
        cycle=manifest.cycle,
        run_id=manifest.run_id,
        href=manifest.path,
        manifest_sha256=manifest_sha256,
        init_time=Cycle.parse(manifest.cycle).datetime,
        available_at=manifest.created_at,
        modified_at=max((manifest.created_at, *announced)),
        members=manifest.members,
        lead_hours=manifest.lead_hours,
        bytes=manifest.bytes,
        model_variant=text("model_variant"),
        weights_sha256=text("weights_sha256"),
        code_version=text("code_version"),
        comment=text("comment"),
        health=manifest.sick_members,
        input_analyses=tuple(manifest.provenance.get("input_analyses", ())),
        stores=tuple(_store(manifest, name, note) for name in manifest.stores),
        plots=tuple(
            f"{manifest.path}/{record.key}"
            for record in manifest.objects
            if record.key.endswith(_PLOTS)
        ),
    )


def _text_of(manifest: Manifest) -> Callable[[str], str]:
    return lambda name: str(manifest.provenance.get(name, ""))


def _store(manifest: Manifest, name: str, note: Pruned) -> StoreEntry:
    return StoreEntry(
        name=name,
        kind="zarr" if name.endswith(".zarr") else "file",
        href=f"{manifest.path}/{name}",
        bytes=sum(r.size for r in manifest.objects if r.key.split("/", 1)[0] == name),
        available=name not in note.announced,
    )


def schema_directory() -> Path:
    """Where the checked-in JSON Schemas lie."""
    return Path(str(resources.files("postprocess"))) / "templates" / "schemas"


def schemas() -> dict[str, str]:
    """JSON Schema of every document that readers may rely on, by file name."""
    documents: dict[str, type[Record] | type[Pointer]] = {
        "index": Index,
        "manifest": Manifest,
        "pointer": Pointer,
        "pruned": Pruned,
    }
    return {
        f"{name}.schema.json": json.dumps(
            model.model_json_schema(mode="serialization"), indent=1, sort_keys=True
        )
        + "\n"
        for name, model in documents.items()
    }


def schema_faults() -> list[str]:
    """Checked-in schemas that are not what the code makes."""
    return [
        f"{name} differs"
        for name, text in schemas().items()
        if not (path := schema_directory() / name).is_file() or path.read_text() != text
    ]


def write_schemas() -> list[Path]:
    """Write every schema again; the paths written."""
    for name, text in schemas().items():
        write_atomic(schema_directory() / name, text.encode())
    return [schema_directory() / name for name in schemas()]
