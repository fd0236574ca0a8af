"""A prefix of a Google Cloud Storage bucket as an object root, through gcsfs."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import gcsfs
from gcsfs.retry import HttpError

from mosaic_core.contract.errors import PublishError
from postprocess.objects.content import content_type
from postprocess.objects.root import (
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    Tagged,
    UnreachableError,
)

_OBJECT = "b/{}/o/{}"
_OBJECTS = "b/{}/o"
_DELETES_AT_ONCE = 16
# gcsfs by itself waits for ever. What was sent may lie in the system's buffers for a while before
# it is on a slow line; 64 MB over one of 0.6 Mbit/s take a quarter of an hour.
_TIMEOUT = aiohttp.ClientTimeout(total=900, sock_connect=10, sock_read=180)


class GcsRoot:
    """Credentials are Google's application default; STORAGE_EMULATOR_HOST names a test server.

    gcsfs signs, retries and pools; the requests are the JSON API's own, because gcsfs offers
    neither a conditional replacement nor Cache-Control on every way of writing.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._fs = gcsfs.GCSFileSystem(use_listings_cache=False, requests_timeout=_TIMEOUT)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._address = f"gs://{bucket}/{prefix}".rstrip("/")

    @property
    def address(self) -> str:
        """gs://bucket/prefix."""
        return self._address

    def read(self, key: str) -> bytes:
        """The object's content."""
        found = self.read_tagged(key)
        if found is None:
            raise MissingObjectError("no such object", where=f"{self._address}/{key}")
        return found.content

    def read_tagged(self, key: str) -> Tagged | None:
        """Content and generation."""
        with self._explained(key):
            try:
                headers, content = self._fs.call(
                    "GET", _OBJECT, self._bucket, self._prefix + key, alt="media"
                )
            except FileNotFoundError:
                return None
            return Tagged(bytes(content), str(headers["x-goog-generation"]))

    def write(self, key: str, content: bytes, *, cache: str) -> None:
        """Upload in one request."""
        with self._explained(key):
            self._send(key, content, cache)

    def upload(self, key: str, path: Path, *, cache: str) -> None:
        """Upload of a file in one request."""
        self.write(key, path.read_bytes(), cache=cache)

    def swap(self, key: str, content: bytes, *, expected: str | None, cache: str) -> bool:
        """Upload with ifGenerationMatch; generation 0 is an object that is not there."""
        with self._explained(key):
            try:
                self._send(key, content, cache, ifGenerationMatch=expected or "0")
            except FileExistsError:
                return False
        return True

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Every object below a prefix, page by page."""
        folder = f"{self._prefix}{prefix}".rstrip("/")
        with self._explained(prefix):
            items = [
                item
                for page in self._pages(prefix=f"{folder}/" if folder else "")
                for item in page.get("items", [])
            ]
        return sorted((self._info(item) for item in items), key=lambda info: info.key)

    def folders(self, prefix: str) -> list[str]:
        """Common prefixes."""
        folder = f"{self._prefix}{prefix}".rstrip("/")
        with self._explained(prefix):
            pages = self._pages(prefix=f"{folder}/" if folder else "", delimiter="/")
            found = [path for page in pages for path in page.get("prefixes", [])]
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def sweep(self, before: datetime) -> int:  # noqa: ARG002
        """Nothing to do: Cloud Storage shows nothing of an upload that did not finish."""
        return 0

    def delete(self, keys: Iterable[str]) -> None:
        """One request each, several at once."""
        with ThreadPoolExecutor(_DELETES_AT_ONCE, thread_name_prefix="delete") as pool:
            list(pool.map(self._delete, keys))

    def _delete(self, key: str) -> None:
        with self._explained(key), suppress(FileNotFoundError):
            self._fs.call("DELETE", _OBJECT, self._bucket, self._prefix + key)

    def _send(self, key: str, content: bytes, cache: str, **conditions: str) -> None:
        kind = content_type(key)
        facts = {"name": self._prefix + key, "cacheControl": cache, "contentType": kind}
        boundary = secrets.token_hex(16)
        body = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(facts)}\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n"
        ).encode() + content
        self._fs.call(
            "POST",
            self._fs.base.replace("/storage/v1/", "/upload/storage/v1/") + _OBJECTS,
            self._bucket,
            uploadType="multipart",
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=body + f"\r\n--{boundary}--\r\n".encode(),
            **conditions,
        )

    def _pages(self, **query: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._fs.call("GET", _OBJECTS, self._bucket, json_out=True, **query, **token)
            yield page
            if "nextPageToken" not in page:
                return
            token = {"pageToken": page["nextPageToken"]}

    def _info(self, item: dict[str, Any]) -> ObjectInfo:
        digest = item.get("md5Hash")
        return ObjectInfo(
            key=item["name"].removeprefix(self._prefix),
            size=int(item["size"]),
            modified=datetime.fromisoformat(item["updated"]),
            md5=base64.b64decode(digest).hex() if digest else None,
        )

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        where = f"{self._address}/{key}"
        try:
            yield
        except PublishError:
            raise
        except FileNotFoundError as error:
            raise RefusedError(
                "the bucket does not exist",
                where=self._address,
                remedy="create it or correct the address",
            ) from error
        except HttpError as error:
            refused = str(error.code) in ("401", "403")
            raise _failure(where, error, refused=refused) from error
        except OSError as error:
            raise _failure(where, error, refused="Forbidden" in str(error)) from error
        except Exception as error:
            # aiohttp, requests and google.auth each bring their own: all mean the request failed.
            raise _failure(where, error, refused="google.auth" in type(error).__module__) from error


def _failure(where: str, error: Exception, *, refused: bool) -> UnreachableError:
    if refused:
        return RefusedError(
            "the store refused: no permission, or the credentials are wrong or expired",
            where=where,
            remedy="renew the Google credentials, then publish again: what is there is kept",
        )
    return UnreachableError(
        f"the store failed: {type(error).__name__} {error}"[:300],
        where=where,
        remedy="check the connection, then publish again: what is there is kept",
    )
