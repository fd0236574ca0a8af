"""A prefix of an S3 bucket as an object root, through obstore."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions
from obstore.store import S3Store

from mosaic_core.contract.errors import PublishError
from postprocess.objects.content import content_type
from postprocess.objects.root import (
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    Tagged,
    UnreachableError,
)

_RETRY = {
    "max_retries": 8,
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
    # Below the lifetime of any credential: a request is never retried with expired ones.
    "retry_timeout": timedelta(minutes=2),
}
# Plain HTTP is used only when the endpoint itself says http://, as test servers do.
_CLIENT = {"timeout": "60s", "connect_timeout": "10s", "allow_http": True}
# The client's limit is on a whole request: 64 MB over a line of 0.6 Mbit/s take a quarter of an
# hour, and one of several uploads may have no more than that.
_LARGE_BYTES = 1 << 20
_LARGE_CLIENT = {**_CLIENT, "timeout": "900s"}
_SINGLE_PUT_BYTES = 64 << 20
_TRIES = 5
_DENIED = re.compile(r"\b40[13] (Forbidden|Unauthorized)")
_CUT = re.compile(r"response body")
Answer = TypeVar("Answer")


class _CutError(UnreachableError):
    """The answer stopped in the middle: the client does not ask again by itself."""


class S3Root:
    """Credentials, region and endpoint come from AWS_* (AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, ...).

    Objects up to 64 MB go up in one PUT, so that their ETag is the MD5 of their content and the
    listing alone proves what arrived.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._store = S3Store(bucket, retry_config=_RETRY, client_options=_CLIENT)  # type: ignore[arg-type]
        self._large = S3Store(bucket, retry_config=_RETRY, client_options=_LARGE_CLIENT)  # type: ignore[arg-type]
        self._prefix = f"{prefix}/" if prefix else ""
        self._address = f"s3://{bucket}/{prefix}".rstrip("/")

    @property
    def address(self) -> str:
        """s3://bucket/prefix."""
        return self._address

    def read(self, key: str) -> bytes:
        """The object's content."""
        found = self.read_tagged(key)
        if found is None:
            raise MissingObjectError("no such object", where=f"{self._address}/{key}")
        return found.content

    def read_tagged(self, key: str) -> Tagged | None:
        """Content and ETag."""
        return _asked_again(lambda: self._get(key))

    def write(self, key: str, content: bytes, *, cache: str) -> None:
        """PUT."""
        self._put(key, content, cache, "overwrite")

    def upload(self, key: str, path: Path, *, cache: str) -> None:
        """PUT of a file; in parts above 64 MB."""
        if path.stat().st_size <= _SINGLE_PUT_BYTES:
            self._put(key, path.read_bytes(), cache, "overwrite")
            return
        with self._explained(key):
            attributes = _attributes(key, cache)
            obstore.put(self._large, self._prefix + key, path, attributes=attributes)

    def swap(self, key: str, content: bytes, *, expected: str | None, cache: str) -> bool:
        """PUT with If-Match or If-None-Match.

        When no answer comes, what the store holds then tells whether it was done: the client
        itself never repeats a conditional PUT.
        """
        mode: Any = "create" if expected is None else {"e_tag": expected}
        for last in (False,) * _TRIES + (True,):
            try:
                self._put(key, content, cache, mode)
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
                return False
            except PublishError:
                found = self.read_tagged(key)
                if found is not None and found.content == content:
                    return True
                if (found.tag if found else None) != expected:
                    return False
                if last:
                    raise
            else:
                return True
        return False

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Every object below a prefix."""
        found = _asked_again(lambda: self._list(prefix))
        return sorted(map(self._info, found), key=lambda info: info.key)

    def folders(self, prefix: str) -> list[str]:
        """Common prefixes."""
        found = _asked_again(lambda: self._list_folders(prefix))
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def sweep(self, before: datetime) -> int:  # noqa: ARG002
        """Nothing to do: S3 shows nothing of a PUT that did not finish."""
        return 0

    def delete(self, keys: Iterable[str]) -> None:
        """Bulk delete, repeated when no answer came: to delete twice is to delete once."""
        wanted = list(keys)
        for last in (False,) * _TRIES + (True,):
            try:
                with self._explained(next(iter(wanted), "")):
                    obstore.delete(self._store, [self._prefix + key for key in wanted])
                return
            except PublishError:
                if last:
                    raise

    def _get(self, key: str) -> Tagged | None:
        with self._explained(key):
            try:
                found = obstore.get(self._store, self._prefix + key)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            return Tagged(bytes(found.bytes()), str(found.meta["e_tag"]))

    def _list(self, prefix: str) -> list[Any]:
        with self._explained(prefix):
            pages = obstore.list(self._store, self._prefix + prefix, chunk_size=1000)
            return [meta for page in pages for meta in page]

    def _list_folders(self, prefix: str) -> list[str]:
        with self._explained(prefix):
            found = obstore.list_with_delimiter(self._store, self._prefix + prefix)
            return list(found["common_prefixes"])

    def _put(self, key: str, content: bytes, cache: str, mode: Any) -> None:
        with self._explained(key):
            obstore.put(
                self._large if len(content) > _LARGE_BYTES else self._store,
                self._prefix + key,
                content,
                attributes=_attributes(key, cache),
                mode=mode,
                use_multipart=False,
            )

    def _info(self, meta: Any) -> ObjectInfo:
        tag = str(meta["e_tag"] or "").strip('"')
        return ObjectInfo(
            key=meta["path"].removeprefix(self._prefix),
            size=meta["size"],
            modified=meta["last_modified"],
            md5=tag if len(tag) == 32 else None,
        )

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        where = f"{self._address}/{key}"
        try:
            yield
        except (exceptions.PreconditionError, exceptions.AlreadyExistsError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise RefusedError(
                    "the bucket does not exist",
                    where=self._address,
                    remedy="create it or correct the address",
                ) from error
            raise MissingObjectError("no such object", where=where) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise _refused(where) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            if _DENIED.search(str(error)):  # listings report it as any other failure
                raise _refused(where) from error
            failure = _CutError if _CUT.search(str(error)) else UnreachableError
            raise failure(
                f"the store failed: {str(error).strip().splitlines()[0][:300]}",
                where=where,
                remedy="check AWS_ENDPOINT_URL and the store, then publish again: what is there "
                "is kept",
            ) from error


def _asked_again(ask: Callable[[], Answer]) -> Answer:
    for _ in range(_TRIES):
        with suppress(_CutError):
            return ask()
    return ask()


def _refused(where: str) -> RefusedError:
    return RefusedError(
        "the store refused: no permission, or the credentials are wrong or expired",
        where=where,
        remedy="renew the AWS_* credentials, then publish again: what is there is kept",
    )


def _attributes(key: str, cache: str) -> dict[str, str]:
    return {"Cache-Control": cache, "Content-Type": content_type(key)}
