"""Putting the page beside the published cycles."""

from __future__ import annotations

import hashlib
from importlib import resources

from postprocess.manifest import SCHEMA_VERSION, ObjectRecord, SealedRecord, digest
from postprocess.objects.root import MUTABLE, ObjectRoot

_FOLDER = "viewer"
LIST = f"{_FOLDER}/files.json"


class PageFiles(SealedRecord):
    """What the page consists of, so that a damaged file of it is found."""

    schema_version: int = SCHEMA_VERSION
    objects: tuple[ObjectRecord, ...]


def site() -> dict[str, bytes]:
    """Every file of the page by key: index.html at the root, the rest in `viewer/`."""
    page = resources.files("postprocess.viewer").joinpath("page")
    files = {entry.name: entry.read_bytes() for entry in page.iterdir()}
    return {
        "index.html": files.pop("index.html"),
        **{f"{_FOLDER}/{name}": content for name, content in sorted(files.items())},
    }


def page_files(root: ObjectRoot) -> tuple[ObjectRecord, ...]:
    """The files of the page that was put at `root`; DamagedError when their list is damaged."""
    found = root.read_tagged(LIST)
    return PageFiles.from_bytes(found.content, f"{root.address}/{LIST}").objects if found else ()


def write_viewer(root: ObjectRoot) -> list[str]:
    """Write what is missing or changed of the page, their list last; the keys written."""
    files = site()
    files[LIST] = PageFiles(objects=tuple(map(_record, files, files.values()))).to_bytes()
    written = []
    for key, content in files.items():
        found = root.read_tagged(key)
        if found is None or found.content != content:
            root.write(key, content, cache=MUTABLE)
            written.append(key)
    return written


def _record(key: str, content: bytes) -> ObjectRecord:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return ObjectRecord(key=key, size=len(content), sha256=digest(content), md5=md5)
