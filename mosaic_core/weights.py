"""Fetch the published weights, pin them, and keep a copy that is safe and quick to read.

The directory becomes a bundle (see `mosaic_core.model.checkpoint`). `weights.lock.json` beside
the files pins them: the first fetch resolves the wanted revision (a branch name by default, since
no release is published) to a commit and records the SHA-256 of every file, checked against the
hub's own where the hub states one; from then on both are enforced.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pydantic
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

from mosaic_core.contract.artifacts import Sha256
from mosaic_core.contract.errors import InputError, ModelError, SourceError
from mosaic_core.contract.files import sha256_file, sync_directory, write_json_atomic
from mosaic_core.download import download
from mosaic_core.model.checkpoint import (
    BUNDLE,
    STATICS,
    BundleInfo,
    assemble,
    statistics_name,
    write_safetensors,
)

REPOSITORY = "maxxxzdn/mosaic"
DEFAULT_REVISION = "main"
LICENCE = "CC-BY-NC-4.0"
LICENCE_NOTICE = (
    f"The Mosaic weights ({REPOSITORY} on the Hugging Face hub) are licensed {LICENCE}: "
    "attribution, no commercial use. That licence covers the weights, not this program."
)
PUBLISHED_VARIANTS = ("era5", "hres")
LOCK = "weights.lock.json"
STAGING = ".download"
MUTEX = ".lock"

Progress = Callable[[str, int, int], None]

# The hub's errors derive from those of its HTTP client, which differs from version to version.
_CLIENT_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]


class LockedFile(pydantic.BaseModel):
    """One pinned file. `verified` tells what its digest was checked against when recorded."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    sha256: Sha256
    size: int
    verified: Literal["hub", "first use", "converted"]


class Lock(pydantic.BaseModel):
    """`weights.lock.json`: the commit the wanted revision was, and the files taken from it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    repository: str
    revision: str
    commit: str
    licence: str = LICENCE
    files: dict[str, LockedFile] = {}

    def with_file(self, name: str, entry: LockedFile) -> Lock:
        """The lock with one file more."""
        return self.model_copy(update={"files": {**self.files, name: entry}})


def published_files(variant: str) -> dict[str, str]:
    """Name in the bundle -> path in the published repository; InputError for other variants."""
    if variant not in PUBLISHED_VARIANTS:
        raise InputError(
            f"no weights of {variant!r} are published",
            remedy=f"choose one of {', '.join(PUBLISHED_VARIANTS)}",
        )
    return {
        f"{variant}_best.pt": f"checkpoints/{variant}_best.pt",
        statistics_name(variant): f"data/{statistics_name(variant)}",
        STATICS: f"data/{STATICS}",
    }


def fetch_weights(
    directory: Path,
    variant: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
    dangerously_unpickle: bool = False,
) -> Lock:
    """Make `directory` hold the published files of `variant`, verified, and a safetensors copy.

    `revision` (default: what the lock pins, else `DEFAULT_REVISION`) is a branch, tag or commit,
    `endpoint` another hub; `progress(name, bytes so far, size)` is called as bytes come. Goes on
    where an earlier fetch stopped; files that match the lock are not fetched again. SourceError
    when the hub fails, refuses or sends other bytes; ModelError when the weights do not fit the
    model; nothing unverified becomes visible. Waits while another process fetches or checks here.
    """
    wanted = published_files(variant)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        lock = _pin(directory, revision, endpoint)
        for name, path in wanted.items():
            if not _is_there(directory, name, lock):
                entry = _fetch_file(directory, name, path, lock, endpoint, progress)
                lock = lock.with_file(name, entry)
                _write_lock(directory, lock)
        _clear_staging(directory, wanted)
        _write_info(directory, lock)
        if not _is_there(directory, f"{variant}.safetensors", lock):
            lock = _convert(directory, variant, lock, dangerously_unpickle)
    return lock


def check_weights(directory: Path, variant: str, *, dangerously_unpickle: bool = False) -> Lock:
    """Compare all files of `variant` with the lock and with the model; return the lock.

    Files that no lock knows (copied here by hand) are recorded as they are, and enforced from
    then on. ModelError lists every file that is missing or differs. Waits as `fetch_weights` does.
    """
    names = list(published_files(variant))
    if not directory.is_dir():
        raise ModelError(
            "no such directory",
            where=str(directory),
            remedy=f"give the one of the weights, or: mosaic-ops weights fetch {variant}",
        )
    with _alone(directory):
        return _checked(directory, variant, names, dangerously_unpickle)


def _checked(directory: Path, variant: str, names: list[str], dangerously_unpickle: bool) -> Lock:
    lock = read_lock(directory) or Lock(
        repository=REPOSITORY, revision="not recorded", commit="not recorded"
    )
    copy = f"{variant}.safetensors"
    faults = [fault for name in names if (fault := _fault(directory, name, lock))]
    if (directory / copy).exists() and (fault := _fault(directory, copy, lock)):
        faults.append(fault)
    if faults:
        raise ModelError(
            "; ".join(faults),
            where=str(directory),
            remedy=f"delete what differs, then: mosaic-ops weights fetch {variant}",
        )
    for name in names:
        if name not in lock.files:
            lock = lock.with_file(name, _entry(directory / name, "first use"))
    _write_lock(directory, lock)
    if copy in lock.files and (directory / copy).exists():
        assemble(directory, variant, directory / copy)
        return lock
    return _convert(directory, variant, lock, dangerously_unpickle)


def read_lock(directory: Path) -> Lock | None:
    """The lock of a directory, None without one; ModelError if it is damaged."""
    path = directory / LOCK
    if not path.exists():
        return None
    try:
        return Lock.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise ModelError(
            f"not a valid lock: {error}",
            where=str(path),
            remedy="restore it; deleting it trusts whatever is fetched next",
        ) from None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Be the only process at work on the bundle; the kernel lets go when a process dies."""
    with (directory / MUTEX).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear_staging(directory: Path, names: Iterable[str]) -> None:
    """Remove the parts of these files, and the folder once it is empty."""
    staging = directory / STAGING
    for name in names:
        for part in staging.glob(f"{name}.*"):
            part.unlink()
    if staging.is_dir() and not any(staging.iterdir()):
        staging.rmdir()


def _write_lock(directory: Path, lock: Lock) -> None:
    write_json_atomic(directory / LOCK, lock.model_dump(mode="json"))


def _pin(directory: Path, revision: str | None, endpoint: str | None) -> Lock:
    lock = read_lock(directory)
    if lock is None or lock.commit == "not recorded":
        wanted = revision or DEFAULT_REVISION
        files = lock.files if lock else {}
        commit = _resolve(wanted, endpoint)
        lock = Lock(repository=REPOSITORY, revision=wanted, commit=commit, files=files)
        _write_lock(directory, lock)
    elif revision not in (None, lock.revision, lock.commit):
        raise InputError(
            f"pinned to {lock.revision} = {lock.commit}, not {revision}",
            where=str(directory / LOCK),
            remedy="use another directory for another revision",
        )
    return lock


def _resolve(revision: str, endpoint: str | None) -> str:
    with _hub_errors(f"revision {revision}"):
        commit = HfApi(endpoint=endpoint, token=False).model_info(REPOSITORY, revision=revision).sha
    if commit is None:
        raise SourceError(f"names no commit for {revision}", where=f"hub {REPOSITORY}")
    return commit


def _fetch_file(
    directory: Path,
    name: str,
    path: str,
    lock: Lock,
    endpoint: str | None,
    progress: Progress | None,
) -> LockedFile:
    with _hub_errors(path):
        url = hf_hub_url(REPOSITORY, path, revision=lock.commit, endpoint=endpoint)
        metadata = get_hf_file_metadata(url, token=False, endpoint=endpoint)
    announced, size = metadata.etag, metadata.size
    if not announced or size is None:
        raise SourceError("does not say which bytes it has", where=f"hub {REPOSITORY} {path}")
    staged = directory / STAGING / f"{name}.{announced}"
    staged.parent.mkdir(exist_ok=True)
    download(url, staged, size, progress and partial(progress, name))
    is_digest = re.fullmatch(r"[0-9a-f]{64}", announced) is not None
    entry = _entry(staged, "hub" if is_digest else "first use")
    for origin, expected in (
        ("the lock", lock.files[name].sha256 if name in lock.files else entry.sha256),
        ("the hub", announced if is_digest else entry.sha256),
    ):
        if entry.sha256 != expected:
            staged.unlink()
            raise SourceError(
                f"arrived with SHA-256 {entry.sha256}, {origin} says {expected}",
                where=f"hub {REPOSITORY} {path}",
                remedy="fetch again; if it stays, do not use the file",
            )
    staged.replace(directory / name)
    sync_directory(directory)
    return entry


def _entry(path: Path, verified: Literal["hub", "first use", "converted"]) -> LockedFile:
    return LockedFile(sha256=sha256_file(path), size=path.stat().st_size, verified=verified)


def _is_there(directory: Path, name: str, lock: Lock) -> bool:
    if name not in lock.files:
        return False
    path = directory / name
    return path.is_file() and sha256_file(path) == lock.files[name].sha256


def _fault(directory: Path, name: str, lock: Lock) -> str | None:
    path = directory / name
    if not path.is_file():
        return f"{name} is missing"
    if name in lock.files and (found := sha256_file(path)) != lock.files[name].sha256:
        return f"{name} has SHA-256 {found}, recorded was {lock.files[name].sha256}"
    return None


def _write_info(directory: Path, lock: Lock) -> None:
    source = f"huggingface.co {lock.repository} at {lock.commit}"
    info = BundleInfo(trained=True, licence=lock.licence, source=source)
    write_json_atomic(directory / BUNDLE, info.model_dump(mode="json"))


def _convert(directory: Path, variant: str, lock: Lock, dangerously_unpickle: bool) -> Lock:
    original = f"{variant}_best.pt"
    model = assemble(
        directory, variant, directory / original, dangerously_unpickle=dangerously_unpickle
    )
    path = directory / f"{variant}.safetensors"
    origin = f"{original}, SHA-256 {lock.files[original].sha256}, {lock.licence}"
    write_safetensors(path, dict(model.state_dict()), origin)
    lock = lock.with_file(path.name, _entry(path, "converted"))
    _write_lock(directory, lock)
    return lock


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    where = f"hub {REPOSITORY}"
    try:
        yield
    except RevisionNotFoundError as error:
        raise SourceError(f"has no {what}", where=where, remedy="check --revision") from error
    except EntryNotFoundError as error:
        raise SourceError(f"has no file {what}", where=where, remedy="check --revision") from error
    except (_CLIENT_ERROR, OSError) as error:
        raise SourceError(
            f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=where,
            remedy="run the same command again; it goes on where it stopped",
        ) from error
