"""HTTP reads from one mirror: time limits, retries, byte ranges that resume.

What an answer means: 404 and 410, not there yet; 401, 408, 425, 429, 5xx, a reset or a timeout,
try again (the portal answers 401 at random); anything else that is not success, this mirror is
out. `Retry-After` is obeyed. Attempts count only while no byte arrives.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from ingest.index import ByteRange
from mosaic_core.contract.errors import NotYetAvailable, SourceError

T = TypeVar("T")

_NOT_YET = frozenset({404, 410})
_AGAIN = frozenset({401, 408, 425, 429})
_OTHER_MIRROR = "take another mirror with --source, or try later"


@dataclass(frozen=True)
class TransferPolicy:
    """Limits of one transfer. `attempts` are those in a row without a new byte."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    total_seconds: float = 1200.0
    attempts: int = 8
    backoff_seconds: float = 0.5
    backoff_limit_seconds: float = 30.0
    concurrency: int = 6


@dataclass(frozen=True)
class ObjectIdentity:
    """What tells one version of an object from another."""

    size: int
    etag: str | None
    last_modified: str | None


class _TryAgain(Exception):
    """The attempt failed in a way that another may not; `wait_seconds` if the server said so."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        self.reason = reason
        self.wait_seconds = wait_seconds
        super().__init__(reason)


class MirrorTrouble(SourceError):
    """The mirror failed for now; it may answer again later."""


class ObjectChanged(MirrorTrouble):
    """The object was replaced between two requests."""


class Mirror:
    """Requests to one mirror under one policy and one deadline. Build it with `open_mirror`."""

    def __init__(self, client: httpx.AsyncClient, policy: TransferPolicy) -> None:
        self._client = client
        self._policy = policy
        self._slots = asyncio.Semaphore(policy.concurrency)
        self._give_up = asyncio.get_running_loop().time() + policy.total_seconds

    async def identity(self, url: str) -> ObjectIdentity:
        """Size and version of an object, from a HEAD request."""

        async def attempt() -> ObjectIdentity:
            response = await self._client.head(url)
            _require_success(response, url)
            return _identity(response, url)

        return await self._persist(attempt, url)

    async def read(self, url: str) -> bytes:
        """A small object as a whole."""

        async def attempt() -> bytes:
            response = await self._client.get(url)
            _require_success(response, url)
            return response.content

        return await self._persist(attempt, url)

    async def read_range(
        self,
        url: str,
        span: ByteRange,
        identity: ObjectIdentity,
        part: Path,
        arrived: Callable[[int], None],
    ) -> None:
        """Complete the file `part` with the bytes of `span`; what it holds already is kept.

        `arrived` is told the size of each new block. Raises ObjectChanged when the object is not
        the one of `identity` any more.
        """

        async def attempt() -> None:
            have = part.stat().st_size if part.exists() else 0
            if have < span.length:
                rest = ByteRange(span.start + have, span.end)
                await self._append(url, rest, identity, part, arrived)

        async with self._slots:
            await self._persist(attempt, url, lambda: part.stat().st_size if part.exists() else 0)

    async def _append(
        self,
        url: str,
        span: ByteRange,
        identity: ObjectIdentity,
        part: Path,
        arrived: Callable[[int], None],
    ) -> None:
        left = span.length
        async with self._client.stream("GET", url, headers={"Range": span.header}) as response:
            _require_success(response, url)
            _require_range(response, span, identity, url)
            with part.open("ab") as file:
                async for block in response.aiter_raw():
                    kept = block[:left]
                    file.write(kept)
                    left -= len(kept)
                    arrived(len(kept))
        if left:
            raise _TryAgain(f"the answer ended {left} bytes early")

    async def _persist(
        self,
        attempt: Callable[[], Awaitable[T]],
        url: str,
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """The result of `attempt`, repeated with growing, random pauses while it makes sense."""
        failures, reached = 0, progress()
        while True:
            try:
                return await attempt()
            except (httpx.TransportError, _TryAgain) as error:
                now_at = progress()
                failures = 1 if now_at > reached else failures + 1
                reached = now_at
                await self._pause(error, failures, url)

    async def _pause(self, error: Exception, failures: int, url: str) -> None:
        reason = str(error) or type(error).__name__
        if failures >= self._policy.attempts:
            raise MirrorTrouble(
                f"gave up after {failures} attempts; the last: {reason}",
                where=public(url),
                remedy=_OTHER_MIRROR,
            ) from None
        asked = error.wait_seconds if isinstance(error, _TryAgain) else None
        seconds = self._pause_seconds(failures, asked)
        if asyncio.get_running_loop().time() + seconds > self._give_up:
            raise MirrorTrouble(
                f"{reason}; the next attempt would be after the deadline of "
                f"{self._policy.total_seconds:g} s",
                where=public(url),
                remedy=_OTHER_MIRROR,
            ) from None
        await asyncio.sleep(seconds)

    def _pause_seconds(self, failures: int, asked: float | None) -> float:
        """What the server asked for, else twice as long each time; both vary, so clients spread."""
        if asked is not None:
            return max(asked, self._policy.backoff_seconds) * random.uniform(1.0, 1.25)
        ceiling = self._policy.backoff_seconds * 2 ** (failures - 1)
        return random.uniform(0.5, 1.0) * min(ceiling, self._policy.backoff_limit_seconds)


@asynccontextmanager
async def open_mirror(root: str, policy: TransferPolicy) -> AsyncIterator[Mirror]:
    """A Mirror whose whole use must end within the policy's total time, else SourceError."""
    limits = httpx.Timeout(policy.read_seconds, connect=policy.connect_seconds)
    client = httpx.AsyncClient(
        timeout=limits,
        follow_redirects=True,
        headers={"Accept-Encoding": "identity", "User-Agent": "mosaic-ops"},
        trust_env=not _is_loopback(root),  # a proxy cannot reach this host's own server
    )
    try:
        async with asyncio.timeout(policy.total_seconds), client:
            yield Mirror(client, policy)
    except TimeoutError:
        raise MirrorTrouble(
            f"not done within the deadline of {policy.total_seconds:g} s",
            where=public(root),
            remedy="run again to resume, or take another mirror with --source",
        ) from None


def public(url: str) -> str:
    """The address without its query, which may hold a token."""
    return url.split("?", 1)[0]


def _is_loopback(root: str) -> bool:
    host = urlsplit(root).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_success(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if response.is_success:
        return
    if status in _NOT_YET:
        raise NotYetAvailable(
            f"not there (HTTP {status})",
            where=public(url),
            remedy="it may not be published yet, or not be kept any more: wait or take another "
            "mirror",
        )
    if status in _AGAIN or status >= 500:
        raise _TryAgain(f"HTTP {status}", _retry_after(response))
    raise SourceError(
        f"the mirror refuses (HTTP {status})", where=public(url), remedy=_OTHER_MIRROR
    )


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _identity(response: httpx.Response, url: str) -> ObjectIdentity:
    size = response.headers.get("Content-Length", "")
    if not size.isdigit():
        raise SourceError(
            "the mirror does not say how long the file is", where=public(url), remedy=_OTHER_MIRROR
        )
    return ObjectIdentity(
        int(size), response.headers.get("ETag"), response.headers.get("Last-Modified")
    )


def _require_range(
    response: httpx.Response, span: ByteRange, identity: ObjectIdentity, url: str
) -> None:
    if response.status_code != 206:
        raise SourceError(
            f"the mirror ignores byte ranges (HTTP {response.status_code} to a range)",
            where=public(url),
            remedy=_OTHER_MIRROR,
        )
    compared = {
        "Content-Range": f"bytes {span.start}-{span.end - 1}/{identity.size}",
        "ETag": identity.etag,
        "Last-Modified": identity.last_modified,
    }
    for header, expected in compared.items():
        told = response.headers.get(header)
        if told and expected and told != expected:
            raise ObjectChanged(
                f"the file changed between two requests ({header} was {expected}, is {told})",
                where=public(url),
                remedy="it is being replaced: run again, or take another mirror",
            )
