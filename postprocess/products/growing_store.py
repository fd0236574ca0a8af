"""A Zarr store of maps that grows by one lead at a time and is too large to be held in memory.

One shard holds all leads and levels of an array (of one quantile, where there are several) and
grows at its end, as those of the forecast store do. A chunk is one map, packed as theirs, and ends
in a checksum. Nothing is at the path before the store is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.errors import StoreError
from postprocess.layout import (
    Document,
    Size,
    array_document,
    arrays_of,
    chunk_name,
    group_document,
    sharded,
)
from postprocess.product_store import product_document, write_product
from postprocess.shards import encode_chunk, encode_index
from postprocess.store_files import disk_errors, replace_store, write_documents
from postprocess.structure import guard_product

_LEAD = "lead_time"
_MAP = ("latitude", "longitude")


@dataclass(frozen=True)
class MapArray:
    """One growing array: its dims after lead_time with their lengths, and its attributes."""

    sizes: Mapping[str, int]
    attributes: Mapping[str, Any]

    def document(self, leads: Size) -> Document:
        """zarr.json of the array with this many leads."""
        inner = [1, *(size if dim in _MAP else 1 for dim, size in self.sizes.items())]
        outer = [leads, *(1 if dim == "quantile" else size for dim, size in self.sizes.items())]
        return array_document(
            (_LEAD, *self.sizes), [leads, *self.sizes.values()], self.attributes,
            data_type="float32", fill_value="NaN", codecs=[sharded(inner)], chunk=outer,
        )  # fmt: skip


class GrowingStore:
    """`append` the maps of each lead in order, then `finish` once with everything else.

    What an earlier, unfinished writer left at `path` is removed. StoreError for a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._shards = path.with_name(f".{path.name}.shards")
        self._lengths: dict[Path, list[int]] = {}
        self._maps: dict[Path, int] = {}  # in a lead
        shutil.rmtree(self._shards, ignore_errors=True)

    def append(self, name: str, values: NDArray[np.float32], quantile: int | None = None) -> None:
        """Add the next lead of an array, C-contiguous ([level,] latitude, longitude)."""
        one = () if quantile is None else (quantile,)
        shard = self._shards / name / chunk_name(0, *one, *[0] * values.ndim)
        maps = values.reshape(-1, *values.shape[-2:])
        self._extend(shard, [encode_chunk(field) for field in maps])

    def finish(
        self,
        maps: Mapping[str, MapArray],
        rest: xr.Dataset,
        attributes: Mapping[str, Any],
        *,
        template: str | None = None,
    ) -> None:
        """Make the store: the growing `maps`, and `rest` with the coordinates.

        `attributes` of the run are joined by those of `rest`, which win. `template` names the
        reviewed product that it must look like.
        """
        small = product_document(rest, attributes)
        leads = rest.sizes[_LEAD]
        grown = {name: array.document(leads) for name, array in maps.items()}
        document = group_document(small["attributes"], {**grown, **arrays_of(small)})
        if template is not None:
            guard_product(document, template)
        with disk_errors(self.path):
            for shard, lengths in self._lengths.items():
                self._require_every_lead(shard, len(lengths) // self._maps[shard], leads)
                with shard.open("ab") as file:
                    file.write(encode_index(lengths))
            write_product(self._partial, rest, attributes)
            for folder in sorted(self._shards.iterdir()):
                folder.rename(self._partial / folder.name)
            self._shards.rmdir()
            write_documents(self._partial, document)
            replace_store(self._partial, self.path)

    def _extend(self, shard: Path, chunks: list[bytes]) -> None:
        with disk_errors(self.path):
            if shard not in self._lengths:
                shard.parent.mkdir(parents=True, exist_ok=True)
            with shard.open("ab") as file:
                file.write(b"".join(chunks))
        self._maps[shard] = len(chunks)
        self._lengths.setdefault(shard, []).extend(map(len, chunks))

    def _require_every_lead(self, shard: Path, found: int, leads: int) -> None:
        if found != leads:
            raise StoreError(
                f"{shard.parent.name} has {found} of {leads} leads", where=str(self.path)
            )
