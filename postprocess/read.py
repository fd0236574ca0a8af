"""Opening what is published: one line, the newest cycle, its metadata proved first."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, StoreError
from postprocess.manifest import digest
from postprocess.objects.root import open_root
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
    key = LATEST if cycle is None else current_key(cycle)
    pointer = read_checked(target, key)
    if pointer is None:
        raise InputError(
            "nothing is published" if cycle is None else f"cycle {cycle} is not published",
            where=target.address,
            remedy="`mosaic-ops catalog` lists what is",
        )
    wanted = f"{store}/{_METADATA}"
    records = {record.key: record for record in manifest_of(target, pointer).objects}
    if wanted not in records:
        raise InputError(
            f"there is no store {store!r}",
            where=f"{target.address}/{pointer.path}",
            remedy="`mosaic-ops catalog` lists what is",
        )
    address = f"{target.address}/{pointer.path}/{store}"
    if digest(target.read(f"{pointer.path}/{wanted}")) != records[wanted].sha256:
        raise StoreError(
            "the metadata are not those that were published",
            where=f"{address}/{_METADATA}",
            remedy="`mosaic-ops verify-store` shows what else is damaged",
        )
    return xr.open_zarr(address, chunks=None, consolidated=True)
