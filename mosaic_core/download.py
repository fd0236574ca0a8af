"""Copy one large file over HTTP, going on where an earlier try or an earlier process stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from mosaic_core.contract.errors import SourceError

ATTEMPTS = 5  # in a row without a byte
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # worth asking again


def download(
    url: str, part: Path, size: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Make `part` hold the `size` bytes of `url`, keeping those it has already.

    `progress(bytes so far, size)` is called as they come. Redirects are followed. SourceError
    when the server refuses, or fails `ATTEMPTS` times in a row; what arrived stays in `part`.
    """
    failures = 0
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS) as client:
        while (have := _size(part)) != size:
            try:
                _append(client, url, part, size, progress or _silent)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                failures = failures + 1 if _size(part) == have else 1
                if failures == ATTEMPTS or _is_final(error):
                    raise _refusal(url, error) from error
                time.sleep(PAUSE_SECONDS)


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
            file.truncate(0)  # the server sends all of it again
        for piece in response.iter_raw():
            file.write(piece)
            progress(file.tell(), size)
        file.flush()
        os.fsync(file.fileno())


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _silent(_done: int, _size: int) -> None:
    pass


def _is_final(error: httpx.HTTPError) -> bool:
    if not isinstance(error, httpx.HTTPStatusError):
        return False
    return error.response.status_code not in PASSING | {416}


def _refusal(url: str, error: httpx.HTTPError) -> SourceError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SourceError(
        f"download stopped: {reason}",
        where=url,
        remedy="run the same command again; it goes on where it stopped",
    )
