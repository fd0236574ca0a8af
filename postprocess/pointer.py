"""Pointers: `latest.json`, and each cycle's `current.json`, moved by compare-and-swap only.

A pointer only ever moves forward: the root's to a newer cycle or a better run of the same one, a
cycle's to a better run (Manifest.rank). A pointer that cannot be trusted, because somebody edited
it or its run is gone, counts as no pointer and is replaced. One that the store does not give counts
as nothing at all: that is an error, and no pointer moves.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import time
from collections.abc import Iterator
from datetime import datetime

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError
from postprocess.manifest import (
    MANIFEST,
    DamagedError,
    Manifest,
    digest,
    parsed,
    pointer_to,
    require_version,
)
from postprocess.objects.root import MUTABLE, MissingObjectError, ObjectRoot

_LOG = logging.getLogger(__name__)

LATEST = "latest.json"
CURRENT = "current.json"
# Each lost swap means that another publisher won: with a few publishers, 30 losses are a fault.
_TRIES = 30

Standing = tuple[datetime, int, datetime]


def current_key(cycle: Cycle) -> str:
    """Key of a cycle's own pointer."""
    return f"cycles/{cycle.id}/{CURRENT}"


def read_checked(root: ObjectRoot, key: str) -> Pointer | None:
    """The pointer at `key`; None when there is none, DamagedError when it is not valid."""
    found = root.read_tagged(key)
    return None if found is None else _valid(found.content, f"{root.address}/{key}")


def require_our_version(root: ObjectRoot, *keys: str) -> None:
    """OtherVersionError when one of these documents is there and of another schema version."""
    for key in keys:
        if found := root.read_tagged(key):
            require_version(found.content, f"{root.address}/{key}")


def manifest_of(root: ObjectRoot, pointer: Pointer) -> Manifest:
    """The manifest that a pointer names; DamagedError unless it is the very one."""
    key = f"{pointer.path}/{MANIFEST}"
    content = root.read(key)
    if digest(content) != pointer.manifest_sha256:
        raise DamagedError(
            "the manifest is not the one that the pointer names",
            where=f"{root.address}/{key}",
            remedy="`mosaic-ops verify-store` shows what else is damaged; publish the cycle again",
        )
    return Manifest.from_bytes(content, f"{root.address}/{key}")


def trusted(root: ObjectRoot, content: bytes, key: str) -> Manifest | None:
    """The manifest behind a pointer's content; None, with a warning, when it leads nowhere.

    OtherVersionError for another schema version: that is not ours to replace. UnreachableError when
    the store does not tell.
    """
    try:
        return manifest_of(root, _valid(content, f"{root.address}/{key}"))
    except (MissingObjectError, DamagedError) as error:
        _LOG.warning("%s/%s cannot be trusted: %s", root.address, key, error)
        return None


def advance(root: ObjectRoot, key: str, wanted: Manifest, manifest_sha256: str) -> Manifest:
    """Move the pointer at `key` to `wanted` unless it stands at something better already.

    Returns the manifest that it stands at afterwards. PublishError when other publishers win
    every time.
    """
    content = _bytes(sealed(pointer_to(wanted, manifest_sha256, secrets.token_hex(8))))
    for attempt in range(_TRIES):
        found = root.read_tagged(key)
        standing = trusted(root, found.content, key) if found else None
        if standing is not None and standing_of(standing) >= standing_of(wanted):
            return standing
        expected = found.tag if found else None
        if root.swap(key, content, expected=expected, cache=MUTABLE):
            return wanted
        if (now := root.read_tagged(key)) is not None and now.content == content:
            return wanted
        time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
    raise PublishError(
        f"lost the race for the pointer {_TRIES} times",
        where=f"{root.address}/{key}",
        remedy="see who else publishes here; then publish again",
    )


def cycle_manifests(root: ObjectRoot) -> Iterator[tuple[Cycle, Manifest]]:
    """The current run of every cycle that has one, oldest cycle first."""
    for name in root.folders("cycles"):
        try:
            cycle = Cycle.parse(name)
        except InputError:
            continue
        manifest = current_manifest(root, cycle)
        if manifest is not None:
            yield cycle, manifest


def current_manifest(root: ObjectRoot, cycle: Cycle) -> Manifest | None:
    """The manifest of a cycle's current run; None without a trusted pointer."""
    key = current_key(cycle)
    found = root.read_tagged(key)
    return trusted(root, found.content, key) if found else None


def sealed(pointer: Pointer) -> Pointer:
    """The pointer with a token that fits it: a random part, then a digest of everything else."""
    nonce = pointer.token.partition("-")[0]
    rest = pointer.model_copy(update={"token": nonce}).model_dump_json()
    return pointer.model_copy(update={"token": f"{nonce}-{digest(rest.encode())[:16]}"})


def standing_of(manifest: Manifest) -> Standing:
    """What pointers go by: a newer cycle, then a better run."""
    return Cycle.parse(manifest.cycle).datetime, *manifest.rank


def _valid(content: bytes, where: str) -> Pointer:
    pointer = parsed(Pointer, content, where)
    if sealed(pointer) != pointer:
        raise DamagedError(
            "the pointer is damaged or was edited by hand: its token does not fit",
            where=where,
            remedy="`mosaic-ops catalog ROOT --rebuild` repairs it",
        )
    return pointer


def _bytes(pointer: Pointer) -> bytes:
    return (json.dumps(pointer.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()
