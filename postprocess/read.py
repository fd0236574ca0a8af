"""Reading what is published, proved by its manifest: a store in one line, any file as bytes."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, StoreError
from postprocess.manifest import digest
from postprocess.objects.root import ObjectRoot, open_root
from postprocess.pointer import LATEST, current_key, manifest_of, read_checked
from postprocess.publish import FORECAST

_METADATA = "zarr.json"


def open_published(
    root: Path | str, store: str = FORECAST, *, cycle: Cycle | None = None
) -> xr.Dataset:
    """A store of the newest cycle, or of `cycle`, lazily; nothing is read but its metadata.

    Data carry a checksum in every chunk and fail on damage; metadata carry none, so their digest
    is compared with the manifest here. InputError: nothing of that name is published. StoreError:
    the metadata are damaged.
    """
    target = open_root(root)
    pointer = _pointer(target, cycle)
    _proved(target, pointer, f"{store}/{_METADATA}", store)
    address = f"{target.address}/{pointer.path}/{store}"
    return xr.open_zarr(address, chunks=None, consolidated=True)


def read_published(root: Path | str, name: str, *, cycle: Cycle | None = None) -> bytes:
    """A file of the newest cycle, or of `cycle`, such as tracks.csv or atlas/atlas.json.

    Tables, pictures and JSON carry no checksum of their own: here the content is compared with the
    manifest. InputError: nothing of that name is published. StoreError: it is damaged.
    """
    target = open_root(root)
    return _proved(target, _pointer(target, cycle), name, name)


def _pointer(target: ObjectRoot, cycle: Cycle | None) -> Pointer:
    pointer = read_checked(target, LATEST if cycle is None else current_key(cycle))
    if pointer is None:
        raise InputError(
            "nothing is published" if cycle is None else f"cycle {cycle} is not published",
            where=target.address,
            remedy="`mosaic-ops catalog` lists what is",
        )
    return pointer


def _proved(target: ObjectRoot, pointer: Pointer, key: str, name: str) -> bytes:
    """Content of an object of the run, which is what its manifest says."""
    records = {record.key: record for record in manifest_of(target, pointer).objects}
    if key not in records:
        raise InputError(
            f"there is no {name!r}",
            where=f"{target.address}/{pointer.path}",
            remedy="`mosaic-ops catalog` lists what is",
        )
    content = target.read(f"{pointer.path}/{key}")
    if digest(content) != records[key].sha256:
        raise StoreError(
            "not what was published: its digest is not that of the manifest",
            where=f"{target.address}/{pointer.path}/{key}",
            remedy="`mosaic-ops verify-store` shows what else is damaged",
        )
    return content
