"""A local folder as an object root."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mosaic_core.contract.files import sync_directory
from postprocess.objects.root import (
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    Tagged,
    UnreachableError,
)

ASIDE = ".aside"
"""Folder below the root in which objects are made before they are renamed into place."""
_TRIES = 30
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class LocalRoot:
    """Objects are files; each is made aside, synced and renamed. `cache` has no meaning here.

    Swaps hold a lock that the kernel lets go of when its process dies. Files come in by a hard
    link where the file system allows it, so publishing costs no second copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.path)

    def read(self, key: str) -> bytes:
        """Content of the file."""
        with self._explained(key):
            try:
                return (self.path / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise MissingObjectError("no such object", where=f"{self.path}/{key}") from None

    def read_tagged(self, key: str) -> Tagged | None:
        """Content of the file, and its digest as the tag."""
        try:
            content = self.read(key)
        except MissingObjectError:
            return None
        return Tagged(content, hashlib.sha256(content).hexdigest())

    def write(self, key: str, content: bytes, *, cache: str) -> None:  # noqa: ARG002
        """Create or replace a file."""

        def fill(aside: Path) -> None:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        self._put(key, fill)

    def upload(self, key: str, path: Path, *, cache: str) -> None:  # noqa: ARG002
        """Hard-link or copy a file to its place."""
        target = self.path / key
        with self._explained(key), suppress(FileNotFoundError, NotADirectoryError):
            if target.samefile(path):
                return
        self._put(key, lambda aside: _link_or_copy(path, aside))

    def swap(self, key: str, content: bytes, *, expected: str | None, cache: str) -> bool:
        """Replace the file if its digest is still `expected`."""
        with self._lock(key):
            found = self.read_tagged(key)
            if (found.tag if found else None) != expected:
                return False
            self.write(key, content, cache=cache)
            return True

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Every file below a folder, except those being made."""
        top = self.path / prefix
        with self._explained(prefix):
            return sorted(
                (
                    info
                    for folder, _, names in os.walk(top, onerror=_unless_absent)
                    if ASIDE not in Path(folder).relative_to(self.path).parts
                    for info in self._infos(Path(folder), names)
                ),
                key=lambda info: info.key,
            )

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a folder."""
        with self._explained(prefix):
            try:
                return sorted(each.name for each in os.scandir(self.path / prefix) if each.is_dir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, keys: Iterable[str]) -> None:
        """Delete files, and the folders that become empty."""
        for key in keys:
            with self._explained(key):
                (self.path / key).unlink(missing_ok=True)
            self._drop_empty_folders((self.path / key).parent)

    def sweep(self, before: datetime) -> int:
        """Remove files that were being made before that time."""
        made = [path for path in (self.path / ASIDE).glob("*") if path.suffix != ".lock"]
        with self._explained(ASIDE):
            return sum(_removed_if_old(path, before) for path in made)

    def _infos(self, folder: Path, names: Iterable[str]) -> Iterator[ObjectInfo]:
        for name in names:
            try:
                status = (folder / name).stat()
            except FileNotFoundError:
                continue
            key = (folder / name).relative_to(self.path).as_posix()
            modified = datetime.fromtimestamp(status.st_ctime, tz=UTC)
            yield ObjectInfo(key, status.st_size, modified)

    def _put(self, key: str, fill: Callable[[Path], None]) -> None:
        target = self.path / key
        aside = self.path / ASIDE / f"{secrets.token_hex(8)}"
        with self._explained(key):
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                fill(aside)
                _put_in_place(aside, target)
            finally:
                aside.unlink(missing_ok=True)

    def _drop_empty_folders(self, folder: Path) -> None:
        while folder != self.path:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        path = self.path / ASIDE / f"{key.replace('/', '.')}.lock"
        with self._explained(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = RefusedError if error.errno in _REFUSED else UnreachableError
            raise kind(
                f"{error.strerror or error}",
                where=f"{self.path}/{key}",
                remedy="make room or mend the permission, then publish again: what is there "
                "already is kept",
            ) from error


def _unless_absent(error: OSError) -> None:
    """A folder that is not there, or no more, holds nothing; any other may hold something."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _removed_if_old(path: Path, before: datetime) -> bool:
    """Whether this call removed it: its writer, or another sweep, may be quicker."""
    try:
        if path.lstat().st_ctime >= before.timestamp():
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _put_in_place(aside: Path, target: Path) -> None:
    """Rename, again and again while others delete the folder, empty for a moment, under us."""
    for last in (False,) * _TRIES + (True,):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, target)
            break
        except FileNotFoundError:
            if last:
                raise
    with suppress(FileNotFoundError):  # what was put there is deleted already, folder and all
        sync_directory(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
