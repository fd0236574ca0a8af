"""A product store that grows by one lead at a time, with the promises of all our stores.

Float32 arrays along lead_time are packed and written as each lead comes, with a checksum in every
chunk; all else is small, is held, and is written with the metadata at the end. There is no
zarr.json before that: what is half written cannot be opened.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mosaic_core.contract.errors import StoreError
from postprocess.layout import Document, array_document, chunk_name, group_document
from postprocess.product_store import (
    StoredArray,
    array_objects,
    coordinate_names,
    document_of,
    plain,
    stored_arrays,
    whole_chunk,
)
from postprocess.shards import CODECS
from postprocess.store_files import disk_errors, write_documents

_LEAD = "lead_time"
# One lead and one quantile a chunk, with all levels: few files, at most 1.5 MB each.
_SINGLE = (_LEAD, "quantile", "threshold")


class LeadStore:
    """Datasets with one lead each, joined along lead_time in the new store `path`.

    An older store at `path` is removed first. StoreError: a full disk, a dtype that cannot be
    stored, a lead whose arrays are not those of the first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._first: dict[str, StoredArray] = {}
        self._held: dict[str, list[StoredArray]] = {}
        self._attributes: dict[str, Any] = {}

    def append(self, dataset: xr.Dataset) -> None:
        """Add one lead: variables without lead_time must repeat those of the first."""
        arrays = {array.name: array for array in stored_arrays(dataset, {})}
        if self._count == 0:
            shutil.rmtree(self._path, ignore_errors=True)
            self._first = arrays
            self._attributes = {**plain(dataset.attrs), **coordinate_names(dataset)}
        if arrays.keys() != self._first.keys():
            raise StoreError(
                f"other variables than before: {sorted(arrays.keys() ^ self._first.keys())}",
                where=str(self._path),
            )
        with disk_errors(self._path):
            for name, array in arrays.items():
                if _is_streamed(array):
                    _write_lead(self._path / name, array, self._count)
                elif _LEAD in array.dims:
                    self._held.setdefault(name, []).append(array)
        self._count += 1

    def finish(self) -> None:
        """Write what was held and the metadata; StoreError when there was no lead."""
        if self._count == 0:
            raise StoreError("no lead was given", where=str(self._path))
        whole = {
            name: array.joined(self._held[name], _LEAD) if name in self._held else array
            for name, array in self._first.items()
        }
        documents = {
            name: _streamed(array, self._count) if _is_streamed(array) else document_of(array)
            for name, array in whole.items()
        }
        with disk_errors(self._path):
            for name, array in whole.items():
                if not _is_streamed(array):
                    array_objects(self._path / name, array)
            write_documents(self._path, group_document(self._attributes, documents))


def _is_streamed(array: StoredArray) -> bool:
    return array.values.dtype == np.float32 and _LEAD in array.dims


def _write_lead(directory: Path, array: StoredArray, lead: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    ranges = [
        range(size) if dim in _SINGLE else range(1)
        for dim, size in zip(array.dims, array.values.shape, strict=True)
    ]
    for key in itertools.product(*ranges):
        place = tuple(
            slice(index, index + 1) if dim in _SINGLE else slice(None)
            for dim, index in zip(array.dims, key, strict=True)
        )
        name = chunk_name(
            *(lead if dim == _LEAD else index for dim, index in zip(array.dims, key, strict=True))
        )
        (directory / name).write_bytes(whole_chunk(array.values[place], array.bits))


def _streamed(array: StoredArray, leads: int) -> Document:
    shape = [
        leads if dim == _LEAD else size
        for dim, size in zip(array.dims, array.values.shape, strict=True)
    ]
    chunk = [1 if dim in _SINGLE else size for dim, size in zip(array.dims, shape, strict=True)]
    return array_document(
        array.dims,
        shape,
        array.attributes,
        data_type="float32",
        fill_value="NaN",
        codecs=CODECS,
        chunk=chunk,
    )
