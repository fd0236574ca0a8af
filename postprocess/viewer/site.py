"""Putting the page beside the published cycles."""

from __future__ import annotations

from importlib import resources

from postprocess.objects.root import MUTABLE, ObjectRoot

_FOLDER = "viewer"


def site() -> dict[str, bytes]:
    """Every file of the page by key: index.html at the root, the rest in `viewer/`."""
    page = resources.files("postprocess.viewer").joinpath("page")
    files = {entry.name: entry.read_bytes() for entry in page.iterdir()}
    return {
        "index.html": files.pop("index.html"),
        **{f"{_FOLDER}/{name}": content for name, content in sorted(files.items())},
    }


def write_viewer(root: ObjectRoot) -> list[str]:
    """Write what is missing or changed of the page; the keys that were written."""
    written = []
    for key, content in site().items():
        found = root.read_tagged(key)
        if found is None or found.content != content:
            root.write(key, content, cache=MUTABLE)
            written.append(key)
    return written
