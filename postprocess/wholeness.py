"""Whether a store on the local disk has every object that its metadata promise.

A reader of Zarr takes a missing object for missing values: it would never say that one is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mosaic_core.contract.errors import StoreError
from postprocess.layout import Document, chunk_name
from postprocess.shards import read_index


def require_whole(store: Path, arrays: Mapping[str, Document]) -> None:
    """StoreError unless each chunk of `arrays` (name to metadata) is there, and each shard has
    an index with all its chunks."""
    for name, array in arrays.items():
        first, shard_shape = array["codecs"][0], array["chunk_grid"]["configuration"]["chunk_shape"]
        inner = (
            first["configuration"]["chunk_shape"]
            if first["name"] == "sharding_indexed"
            else shard_shape
        )
        for path in _objects(store / name, array["shape"], shard_shape):
            if inner != shard_shape:
                read_index(path, prod(shard_shape) // prod(inner))
            elif not path.is_file():
                raise StoreError(
                    "a chunk is missing",
                    where=str(path),
                    remedy="remove the store and run the cycle again",
                )


def _objects(folder: Path, shape: list[int], chunk_shape: list[int]) -> Iterator[Path]:
    grid: list[Any] = [
        range(-(-size // step)) for size, step in zip(shape, chunk_shape, strict=True)
    ]
    for place in product(*grid):
        yield folder / chunk_name(*place)
