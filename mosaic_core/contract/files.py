"""Files that are whole or absent: written aside, synced, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from mosaic_core.contract.errors import InputError

_BLOCK_BYTES = 1 << 20
_ASIDE = re.compile(r"^\..+\.[0-9a-f]{8}\.tmp$")


def write_atomic(path: Path, content: bytes) -> None:
    """Make `path` hold `content`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def figure_form(path: Path) -> str:
    """'png' or 'svg', the form of a figure by its suffix; InputError for any other."""
    form = path.suffix.lstrip(".").lower()
    if form not in ("png", "svg"):
        raise InputError(
            f"figures are PNG or SVG, not {path.suffix!r}",
            where=str(path),
            remedy="end the name with .png or .svg",
        )
    return form


def is_aside(path: Path) -> bool:
    """Whether a file is one that `write_atomic` makes before it renames it."""
    return _ASIDE.match(path.name) is not None


def remove_asides(directory: Path) -> None:
    """Remove what writers that were killed left anywhere below `directory`; no other may be at work
    there."""
    for path in directory.rglob(".*.tmp"):
        if is_aside(path):
            path.unlink(missing_ok=True)


def write_json_atomic(path: Path, content: Any) -> None:
    """`write_atomic` of indented JSON with sorted keys and a final newline."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def sync_directory(directory: Path) -> None:
    """Make a rename or a new entry in `directory` durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
