"""Files of a store on the local disk: its metadata, and the rename that makes it visible."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.files import sync_directory
from postprocess.layout import Document, arrays_of, chunk_name
from postprocess.shards import with_crc
from postprocess.structure import require_promises

ROOT_DOCUMENT = "zarr.json"


def write_coordinates(
    directory: Path, document: Document, coordinates: Mapping[str, NDArray[Any]]
) -> None:
    """The one chunk of every coordinate of the store."""
    arrays = arrays_of(document)
    for name in arrays.keys() & coordinates.keys():
        values = coordinates[name]
        chunk = directory / name / chunk_name(*[0] * values.ndim)
        chunk.parent.mkdir(parents=True, exist_ok=True)
        stored = values.astype(np.dtype(arrays[name]["data_type"]).newbyteorder("<"))
        chunk.write_bytes(with_crc(stored.tobytes()))


def write_documents(directory: Path, document: Document) -> None:
    """Each array's zarr.json, then the consolidated root document, last.

    StoreError when they break a promise of our stores (postprocess.structure).
    """
    require_promises(document, str(directory))
    for name, array in arrays_of(document).items():
        _write_json(directory / name / "zarr.json", array)
    _write_json(directory / ROOT_DOCUMENT, document)


def put_in_place(partial: Path, path: Path) -> None:
    """Make a whole store visible: everything on disk first, then one rename."""
    os.sync()
    os.replace(partial, path)
    sync_directory(path.parent)


def replace_store(partial: Path, path: Path) -> None:
    """`put_in_place` where an older store may be: it goes first, its root document before all."""
    if path.exists():
        (path / ROOT_DOCUMENT).unlink(missing_ok=True)
        shutil.rmtree(path)
    put_in_place(partial, path)


def _write_json(path: Path, document: Document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write: {error.strerror or error}",
            where=str(error.filename or path),
            remedy="make room or mend the permission, then run the command again: it goes on "
            "after the last complete lead",
        ) from error
