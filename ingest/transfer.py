"""HTTP reads from one mirror: time limits, retries, byte ranges that resume.

What an answer means: 404 and 410, not there yet; 401, 408, 425, 429, 5xx, a reset or a timeout,
try again (the portal answers 401 at random); endless redirects and a body that does not decode,
trouble at once; anything else that is not success, this mirror is out. `Retry-After` is obeyed.
Attempts count only while no byte arrives.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from ingest.index import ByteRange
from ingest.multipart import byte_pieces
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


class MultiRangeRefused(SourceError):
    """The mirror answers single ranges only."""


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
            rest = _rest(span, part)
            if rest.length > 0:
                await self._append(url, rest, identity, part, arrived)

        async with self._slots:
            await self._persist(attempt, url, lambda: _held(part))

    async def read_ranges(
        self,
        url: str,
        spans: Sequence[ByteRange],
        identity: ObjectIdentity,
        part_of: Callable[[ByteRange], Path],
        arrived: Callable[[int], None],
    ) -> None:
        """`read_range` of several spans in one request; MultiRangeRefused where that fails."""

        async def attempt() -> None:
            rests = {span: _rest(span, part_of(span)) for span in spans}
            open_spans = {rest.start: span for span, rest in rests.items() if rest.length}
            if open_spans:
                wanted = [rests[span] for span in open_spans.values()]
                await self._scatter(url, wanted, open_spans, identity, part_of, arrived)

        async with self._slots:
            await self._persist(attempt, url, lambda: sum(_held(part_of(span)) for span in spans))

    async def _scatter(
        self,
        url: str,
        wanted: Sequence[ByteRange],
        spans: dict[int, ByteRange],
        identity: ObjectIdentity,
        part_of: Callable[[ByteRange], Path],
        arrived: Callable[[int], None],
    ) -> None:
        listed = ",".join(f"{span.start}-{span.end - 1}" for span in wanted)
        left = sum(span.length for span in wanted)
        async with self._client.stream(
            "GET", url, headers={"Range": f"bytes={listed}"}
        ) as response:
            _require_several(response, url, len(wanted))
            _require_version(response, identity, url)
            async for position, piece in _pieces(response, identity, url):
                # The next piece of a span begins where this one ends.
                span = spans.pop(position, None)
                if span is None:
                    raise _TryAgain(f"bytes from {position} were not asked for")
                spans[position + len(piece)] = span
                with part_of(span).open("ab") as file:
                    file.write(piece)
                left -= len(piece)
                arrived(len(piece))
        if left:
            raise _TryAgain(f"the answer ended {left} bytes early")

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
            except httpx.RequestError as error:  # endless redirects, bytes that do not decode
                raise MirrorTrouble(
                    _reason(error), where=public(url), remedy=_OTHER_MIRROR
                ) from None

    async def _pause(self, error: Exception, failures: int, url: str) -> None:
        reason = _reason(error)
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


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


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
    told = response.headers.get("Content-Range")
    if told and told != f"bytes {span.start}-{span.end - 1}/{identity.size}":
        raise ObjectChanged(
            f"asked for bytes {span.start}-{span.end - 1} of {identity.size}, got {told}",
            where=public(url),
            remedy="the file is being replaced: run again, or take another mirror",
        )
    _require_version(response, identity, url)


def _require_several(response: httpx.Response, url: str, count: int) -> None:
    """One range of one is a plain 206; several must come as multipart/byteranges."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 206 and (count == 1 or kind.startswith("multipart/byteranges")):
        return
    if response.status_code in (200, 206, 400, 416, 501):
        raise MultiRangeRefused(
            f"the mirror does not give several ranges at once (HTTP {response.status_code})",
            where=public(url),
            remedy="single ranges are asked for instead",
        )
    _require_success(response, url)


async def _pieces(
    response: httpx.Response, identity: ObjectIdentity, url: str
) -> AsyncIterator[tuple[int, bytes]]:
    """(offset, bytes) of a 206 answer, of one part or several."""
    told = response.headers.get("Content-Range")
    if told is None:
        async for position, piece in byte_pieces(response.aiter_raw(), identity.size, public(url)):
            yield position, piece
        return
    position = int(told.removeprefix("bytes ").split("-")[0])
    async for block in response.aiter_raw():
        yield position, block
        position += len(block)


def _held(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _rest(span: ByteRange, part: Path) -> ByteRange:
    """What is missing of `span`."""
    return ByteRange(span.start + _held(part), span.end)


def _require_version(response: httpx.Response, identity: ObjectIdentity, url: str) -> None:
    compared = {"ETag": identity.etag, "Last-Modified": identity.last_modified}
    for header, expected in compared.items():
        told = response.headers.get(header)
        if told and expected and told != expected:
            raise ObjectChanged(
                f"the file changed between two requests ({header} was {expected}, is {told})",
                where=public(url),
                remedy="it is being replaced: run again, or take another mirror",
            )
