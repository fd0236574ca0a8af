"""Product stores: any finished dataset as one Zarr v3 store, with the forecast store's promises.

Float32 maps are stored one map per chunk and all leads of everything else per shard; other arrays
are one chunk each. Every object ends in a checksum, the consolidated metadata is written last, the
folder is renamed when it is whole, and the same dataset gives the same bytes.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import StoreError
from postprocess.layout import (
    EPOCH,
    QUANTIZATION,
    Document,
    array_document,
    chunk_name,
    group_document,
    quantization_array,
    sharded,
)
from postprocess.rounding import bit_round
from postprocess.shards import CODECS, PLAIN_CODECS, encode_chunk, encode_index, with_crc
from postprocess.store_files import disk_errors, replace_store, write_documents
from postprocess.structure import guard_product

_MAP_DIMS = ("latitude", "longitude")
_STRING_CODECS: list[Document] = [{"name": "vlen-utf8"}, {"name": "crc32c"}]
_FILL: Mapping[str, Any] = {"f": "NaN", "i": 0, "u": 0, "b": False, "U": ""}


@dataclass(frozen=True)
class StoredArray:
    """One array as it will be stored."""

    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: dict[str, Any]
    bits: int | None

    @property
    def is_maps(self) -> bool:
        """Whether these are float32 maps, stored as shards."""
        return self.values.dtype == np.float32 and self.dims[-2:] == _MAP_DIMS


def write_product(
    path: Path,
    dataset: xr.Dataset,
    attributes: Mapping[str, Any],
    *,
    template: str | None = None,
    keep_bits: Mapping[str, int] | None = None,
) -> None:
    """Write `dataset` to the new store `path`, which opens with plain `xarray.open_zarr`.

    `attributes` of the run (ForecastSpec.attributes()) are joined by the dataset's own, which win.
    `template` names the reviewed product that it must look like. `keep_bits` rounds float32
    variables to that many mantissa bits (postprocess.rounding). A store at `path` is replaced:
    products are made again from the same forecast.

    StoreError: a dtype that cannot be stored, another structure than the template's, a full disk.
    """
    arrays = stored_arrays(dataset, keep_bits or {})
    document = product_document(dataset, attributes, keep_bits=keep_bits)
    if template is not None:
        guard_product(document, template)
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        shutil.rmtree(partial, ignore_errors=True)
        with ThreadPoolExecutor(thread_name_prefix="product") as pool:
            list(pool.map(lambda array: array_objects(partial / array.name, array), arrays))
        write_documents(partial, document)
        replace_store(partial, path)


def product_document(
    dataset: xr.Dataset,
    attributes: Mapping[str, Any],
    *,
    keep_bits: Mapping[str, int] | None = None,
) -> Document:
    """Root zarr.json of the store that `write_product` makes of `dataset`."""
    arrays = stored_arrays(dataset, keep_bits or {})
    named = coordinate_names(dataset, *([QUANTIZATION] if keep_bits else []))
    return group_document(
        {**attributes, **plain(dataset.attrs), **named},
        {array.name: document_of(array) for array in arrays},
    )


def coordinate_names(dataset: xr.Dataset, *more: str) -> dict[str, str]:
    """The group attribute by which xarray tells auxiliary coordinates from data."""
    auxiliary = [str(name) for name in dataset.coords if name not in set(dataset.dims)]
    names = sorted([*auxiliary, *more])
    return {"coordinates": " ".join(names)} if names else {}


def stored_arrays(dataset: xr.Dataset, keep_bits: Mapping[str, int]) -> list[StoredArray]:
    """Every variable of a dataset as it will be stored; StoreError for a dtype that cannot be."""
    arrays = [
        _stored(str(name), dataset.variables[name], keep_bits.get(str(name)))
        for name in dataset.variables
    ]
    if keep_bits:
        attributes = quantization_array()["attributes"]
        arrays.append(StoredArray(QUANTIZATION, (), np.array(0, dtype=np.int32), attributes, None))
    return arrays


def _stored(name: str, variable: xr.Variable, bits: int | None) -> StoredArray:
    values = np.asarray(variable.values)
    attributes = plain(variable.attrs)
    if values.dtype.kind == "M":
        attributes |= {"units": f"hours since {EPOCH}", "calendar": "proleptic_gregorian"}
        values = _whole_hours(name, values.astype("datetime64[ns]").astype(np.int64))
    elif values.dtype.kind == "m":
        attributes |= {"units": "hours", "dtype": "timedelta64[ns]"}
        values = _whole_hours(name, values.astype("timedelta64[ns]").astype(np.int64))
    elif values.dtype.kind in "OT":
        values = np.array([str(value) for value in values.flat]).reshape(values.shape)
    if values.dtype.kind not in _FILL:
        raise StoreError(
            f"cannot store values of type {values.dtype}",
            where=f"product variable {name!r}",
            remedy="use numbers, times, time differences, booleans or text",
        )
    if bits is not None:
        attributes |= {"quantization": QUANTIZATION, "quantization_nsb": bits}
    return StoredArray(name, tuple(map(str, variable.dims)), values, attributes, bits)


def _whole_hours(name: str, nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    hours, rest = np.divmod(nanoseconds, np.int64(3_600_000_000_000))
    if rest.any():
        raise StoreError("times must be whole hours", where=f"product variable {name!r}")
    return hours


def document_of(array: StoredArray) -> Document:
    """zarr.json of one array."""
    shape = array.values.shape
    kind = array.values.dtype.kind
    if array.is_maps:
        inner = [1] * (len(shape) - 2) + list(shape[-2:])
        outer = [
            length if dim == "lead_time" else part
            for dim, length, part in zip(array.dims, shape, inner, strict=True)
        ]
        codecs, chunk = [sharded(inner)], outer
    else:
        codecs, chunk = _STRING_CODECS if kind == "U" else PLAIN_CODECS, list(shape)
        codecs = CODECS if array.values.dtype == np.float32 else codecs
    return array_document(
        array.dims,
        shape,
        array.attributes,
        data_type="string" if kind == "U" else array.values.dtype.name,
        fill_value=_FILL[kind],
        codecs=codecs,
        chunk=chunk,
    )


def array_objects(directory: Path, array: StoredArray) -> None:
    """Write every object of an array into its folder."""
    for key, content in _objects(array):
        target = directory / chunk_name(*key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _objects(array: StoredArray) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Chunk coordinates and bytes of every stored object of an array."""
    if array.is_maps:
        yield from _map_shards(array)
        return
    yield (0,) * array.values.ndim, whole_chunk(array.values, array.bits)


def _map_shards(array: StoredArray) -> Iterator[tuple[tuple[int, ...], bytes]]:
    leading = array.dims[:-2]
    counts = [
        1 if dim == "lead_time" else length
        for dim, length in zip(leading, array.values.shape[:-2], strict=True)
    ]
    for key in itertools.product(*map(range, counts)):
        place = tuple(
            slice(None) if dim == "lead_time" else index
            for dim, index in zip(leading, key, strict=True)
        )
        maps = array.values[place].reshape(-1, *array.values.shape[-2:])
        chunks = [whole_chunk(plane, array.bits) for plane in maps]
        content = b"".join(chunks) + encode_index([len(chunk) for chunk in chunks])
        yield (*key, 0, 0), content


def whole_chunk(values: NDArray[Any], bits: int | None) -> bytes:
    """The bytes of a chunk that holds all of `values`, float32 rounded to `bits` if told."""
    if values.dtype.kind == "U":
        return with_crc(_text_bytes(values))
    if values.dtype != np.float32:
        return with_crc(values.astype(values.dtype.newbyteorder("<")).tobytes())
    owned = np.array(values, order="C")
    if bits is not None:
        bit_round(owned, bits)
    return encode_chunk(owned)


def _text_bytes(values: NDArray[np.str_]) -> bytes:
    """Zarr's vlen-utf8: the count, then each text's length and bytes, little-endian uint32."""
    texts = [text.encode() for text in values.ravel()]
    parts = [len(text).to_bytes(4, "little") + text for text in texts]
    return len(texts).to_bytes(4, "little") + b"".join(parts)


def plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON values."""
    return {
        str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in attributes.items()
    }
