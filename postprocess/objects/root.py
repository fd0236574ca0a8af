"""The one door to published objects: what publishing needs of a folder or a bucket, no more.

Keys are relative, with slashes. Objects appear whole or not at all on every client.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mosaic_core.contract.errors import InputError, PublishError

IMMUTABLE = "public, max-age=31536000, immutable"
MUTABLE = "no-cache, max-age=0"
"""Cache-Control of data that never changes, and of pointers that readers poll."""


class MissingObjectError(PublishError):
    """There is no object of that key."""


class UnreachableError(PublishError):
    """The store did not do what it was asked: nothing is known of the object, whole or damaged.

    Asking again later may help.
    """


class RefusedError(UnreachableError):
    """The store has no such bucket or does not let us: somebody must mend that first."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object as listed: `modified` by the store's own clock, `md5` (hex) where it tells one."""

    key: str
    size: int
    modified: datetime
    md5: str | None = None


@dataclass(frozen=True)
class Tagged:
    """An object's content and the store's opaque tag of this very version."""

    content: bytes
    tag: str


class ObjectRoot(Protocol):
    """A folder or a prefix of a bucket.

    Every method raises UnreachableError that names the key when it cannot do its work.
    """

    @property
    def address(self) -> str:
        """Where this is, for people and for readers: a path, s3://... or gs://..."""

    def read(self, key: str) -> bytes:
        """The object's content; MissingObjectError when there is none."""

    def read_tagged(self, key: str) -> Tagged | None:
        """Content and tag of this version; None when there is no object."""

    def write(self, key: str, content: bytes, *, cache: str) -> None:
        """Create or replace an object."""

    def upload(self, key: str, path: Path, *, cache: str) -> None:
        """Create or replace an object from a file."""

    def swap(self, key: str, content: bytes, *, expected: str | None, cache: str) -> bool:
        """Replace the version `expected` (None: create). False when another version is there.

        False may also mean that an earlier try of this call did it and its answer was lost.
        """

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Every object below the folder `prefix` ('' for all), in order of key."""

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below the folder `prefix`, in order.

        Some stores list a folder for a while after its last object was deleted.
        """

    def sweep(self, before: datetime) -> int:
        """Remove what killed writers left where no listing shows it; how many were removed."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys that are not there are no error."""


def open_root(address: str | Path) -> ObjectRoot:
    """The root at a path, file://, s3://bucket/prefix or gs://bucket/prefix.

    Credentials and endpoints come from the client's usual environment (AWS_*, Google application
    default credentials, STORAGE_EMULATOR_HOST). InputError for another scheme, a missing client and
    a path that is or leads through a file. A folder need not exist yet.
    """
    scheme, separator, rest = str(address).partition("://")
    if not separator:
        return _local(str(address))
    openers: dict[str, Callable[[str], ObjectRoot]] = {
        "file": _local,
        "s3": _s3,
        "gs": _gcs,
        "gcs": _gcs,
    }
    if scheme not in openers:
        raise InputError(
            f"cannot publish to {scheme}://",
            where=str(address),
            remedy="give a folder, s3://bucket/prefix or gs://bucket/prefix",
        )
    return openers[scheme](rest)


def open_existing(address: str | Path) -> ObjectRoot:
    """The same of where something is published already: InputError for a folder not there."""
    root = open_root(address)
    if "://" not in root.address and not os.path.isdir(root.address):
        raise InputError("there is no such folder", where=root.address, remedy="check the address")
    return root


def _local(path: str) -> ObjectRoot:
    from postprocess.objects.local import LocalRoot

    folder = Path(path).absolute()
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not os.path.isdir(there):
        raise InputError(
            "this is a file, not a folder", where=str(there), remedy="give the published folder"
        )
    return LocalRoot(folder)


def _s3(rest: str) -> ObjectRoot:
    try:
        from postprocess.objects.s3 import S3Root
    except ImportError as error:
        raise _not_installed("s3", error) from None
    return S3Root(*split_bucket(rest))


def _gcs(rest: str) -> ObjectRoot:
    try:
        from postprocess.objects.gcs import GcsRoot
    except ImportError as error:
        raise _not_installed("gcs", error) from None
    return GcsRoot(*split_bucket(rest))


def split_bucket(rest: str) -> tuple[str, str]:
    """'bucket/a/b/' as ('bucket', 'a/b'); InputError without a bucket."""
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise InputError("the address has no bucket", remedy="write it like s3://bucket/prefix")
    return bucket, prefix.strip("/")


def _not_installed(extra: str, error: ImportError) -> InputError:
    return InputError(
        f"the client for this address is not installed ({error.name})",
        remedy=f"pip install 'mosaic-ops[{extra}]'",
    )
