"""What retention took away of a run: the note beside it, so that readers and checks know."""

from __future__ import annotations

import logging
from datetime import datetime

from pydantic import Field

from postprocess.manifest import SCHEMA_VERSION, DamagedError, Manifest, SealedRecord
from postprocess.objects.root import MUTABLE, ObjectRoot

_LOG = logging.getLogger(__name__)


class Pruned(SealedRecord):
    """Stores of one run that readers may no longer count on, each with the time it was announced.

    The objects go a grace time after the announcement, so a reader that is at work can finish.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    announced: dict[str, datetime] = Field(default_factory=dict)


def pruned_key(manifest: Manifest) -> str:
    """Key of a run's note."""
    folder = manifest.path.rsplit("/", 1)[0]
    return f"{folder}/pruned.json"


def read_pruned(root: ObjectRoot, manifest: Manifest) -> Pruned:
    """The note on this run; an empty one when there is none or it is about another run.

    A damaged note counts as none, with a warning: retention then announces again, and writes it.
    """
    try:
        return checked_note(root, manifest)
    except DamagedError as error:
        _LOG.warning("no note on what was pruned: %s", error)
        return Pruned(run_id=manifest.run_id)


def checked_note(root: ObjectRoot, manifest: Manifest) -> Pruned:
    """As `read_pruned`, but DamagedError for a damaged note."""
    key = pruned_key(manifest)
    found = root.read_tagged(key)
    note = Pruned.from_bytes(found.content, f"{root.address}/{key}") if found else None
    if note is None or note.run_id != manifest.run_id:
        return Pruned(run_id=manifest.run_id)
    return note


def write_pruned(root: ObjectRoot, manifest: Manifest, note: Pruned) -> None:
    """Replace the note."""
    root.write(pruned_key(manifest), note.to_bytes(), cache=MUTABLE)
