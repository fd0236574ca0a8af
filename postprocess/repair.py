"""Pointers made again from the runs that are there, after somebody or something damaged them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.manifest import MANIFEST, DamagedError, Manifest, digest
from postprocess.objects.root import ObjectRoot
from postprocess.pointer import advance, current_key, current_manifest, cycle_manifests
from postprocess.pruned import read_pruned
from postprocess.publish import advance_latest

_LOG = logging.getLogger(__name__)


def repair_pointers(root: ObjectRoot) -> None:
    """Set right every cycle's pointer that leads nowhere, then `latest.json`.

    A cycle's goes to the best of its runs that are whole. OtherVersionError for documents of
    another schema version: nothing of them is touched. UnreachableError when the store does not
    give one: it is not taken for damaged.
    """
    for name in root.folders("cycles"):
        try:
            cycle = Cycle.parse(name)
        except InputError:
            continue
        if current_manifest(root, cycle) is None:
            for manifest, sha256 in _whole_runs(root, cycle):
                advance(root, current_key(cycle), manifest, sha256)
    for newest in [manifest for _, manifest in cycle_manifests(root)][-1:]:
        advance_latest(root, newest)


def _whole_runs(root: ObjectRoot, cycle: Cycle) -> Iterator[tuple[Manifest, str]]:
    """Manifest, and its digest, of each run of which everything is there that it names."""
    for run in root.folders(f"cycles/{cycle.id}"):
        path = f"cycles/{cycle.id}/{run}"
        found = root.read_tagged(f"{path}/{MANIFEST}")
        if found is None:
            continue
        try:
            manifest = Manifest.from_bytes(found.content, f"{root.address}/{path}/{MANIFEST}")
        except DamagedError as error:
            _LOG.warning("passed over: %s", error)
            continue
        if manifest.path == path and _is_whole(root, manifest):
            yield manifest, digest(found.content)


def _is_whole(root: ObjectRoot, manifest: Manifest) -> bool:
    gone = read_pruned(root, manifest).announced
    sizes = {info.key: info.size for info in root.objects(manifest.path)}
    return all(
        sizes.get(f"{manifest.path}/{record.key}") == record.size
        for record in manifest.objects
        if record.key.split("/", 1)[0] not in gone
    )
