"""Copy one large file over HTTP, going on where an earlier try or an earlier process stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from mosaic_core.contract.errors import SourceError

ATTEMPTS = 5  # in a row without a new byte
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # worth asking again


def download(
    url: str, part: Path, size: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make `part` hold the `size` bytes of `url`, keeping those it has already.

    `progress(bytes so far, size)` is called as they come. Redirects are followed. SourceError
    when the server refuses, has a file of another length, or answers `ATTEMPTS` times in a row
    without more than ever arrived before; what arrived stays in `part`.
    """
    failures, most = 0, _kept(part, size)
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS) as client:
        while _size(part) != size:
            reason = _attempt(client, url, part, size, progress or _silent)
            if _size(part) == size:
                return
            have = _kept(part, size)
            failures = 1 if have > most else failures + 1
            most = max(most, have)
            if failures == ATTEMPTS:
                raise _refusal(url, reason or f"the answer held {_size(part)} of {size} bytes")
            time.sleep(PAUSE_SECONDS)


def _attempt(
    client: httpx.Client,
    url: str,
    part: Path,
    size: int,
    progress: Callable[[int, int], None],
) -> str:
    """Ask once; what failed that another try may not, '' when the answer ended in good order."""
    try:
        _append(client, url, part, size, progress)
    except (httpx.RequestError, httpx.HTTPStatusError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if _is_final(error):
            raise _refusal(url, reason) from error
        return reason
    return ""


def _append(
    client: httpx.Client,
    url: str,
    part: Path,
    size: int,
    progress: Callable[[int, int], None],
) -> None:
    have = _size(part)
    if have > size:
        part.unlink()
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response, part.open("ab") as file:
        if response.status_code == 416:
            file.truncate(0)
        response.raise_for_status()
        if response.status_code != 206:
            _require_length(response, url, size)
            file.truncate(0)  # the server sends all of it again
        for piece in response.iter_raw():
            file.write(piece)
            progress(file.tell(), size)
        file.flush()
        os.fsync(file.fileno())


def _require_length(response: httpx.Response, url: str, size: int) -> None:
    """A whole file of another length than was announced is another file: asking again is idle."""
    told = response.headers.get("Content-Length", "")
    if told.isdigit() and int(told) != size:
        raise _refusal(url, f"the server has {told} bytes, {size} were announced")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _kept(part: Path, size: int) -> int:
    """Bytes that the next try goes on from; those of a file that is too long are none."""
    have = _size(part)
    return have if have <= size else 0


def _silent(_done: int, _size: int) -> None:
    pass


def _is_final(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code not in PASSING | {416}
    return not isinstance(error, httpx.TransportError)


def _refusal(url: str, reason: str) -> SourceError:
    return SourceError(
        f"download stopped: {reason}",
        where=url,
        remedy="run the same command again; it goes on where it stopped",
    )
