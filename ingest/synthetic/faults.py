"""How a mirror misbehaves: what it does wrong, on which requests, for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Refuse:
    """Answer `status` (401, 403, 404, 416, 429, 500, 503 ...), with Retry-After if given."""

    status: int
    retry_after: str | None = None


@dataclass(frozen=True)
class Stall:
    """Send the headers and `after_bytes` of the body, then nothing until the client goes away."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Silence:
    """Accept the request and never answer, not even with headers."""


@dataclass(frozen=True)
class Drip:
    """Send the body at `bytes_per_second`."""

    bytes_per_second: int


@dataclass(frozen=True)
class Reset:
    """Send `after_bytes` of the body, then reset the connection (TCP RST)."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Cut:
    """Promise the whole body, send `after_bytes` of it and close in good order."""

    after_bytes: int = 0


@dataclass(frozen=True)
class HalfUploaded:
    """Serve the object as if only this fraction of it were there yet."""

    fraction: float = 0.5


@dataclass(frozen=True)
class IgnoreRange:
    """Answer 200 with the whole object to a request for a range."""


@dataclass(frozen=True)
class Replace:
    """Serve other bytes in place of the object: a stale index, an error page with status 200."""

    content: bytes


@dataclass(frozen=True)
class NewTag:
    """Give the object another ETag and Last-Modified on each request."""


@dataclass(frozen=True)
class FlipByte:
    """Invert the byte at this offset of the object on its way."""

    offset: int


Action = (
    Refuse | Stall | Silence | Drip | Reset | Cut | HalfUploaded | IgnoreRange | Replace | NewTag
    | FlipByte
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """An action for the requests whose path matches the glob `match` (like '*.index').

    Of the matching requests those numbered `first` .. `first + count - 1` are hit, from 1; all from
    `first` on when `count` is None. With `until_seconds` the fault ends that long after the mirror
    started. `method` restricts it to GET or HEAD.
    """

    match: str
    action: Action
    first: int = 1
    count: int | None = None
    until_seconds: float | None = None
    method: str | None = None

    def hits(self, number: int, seconds: float) -> bool:
        """Whether it hits the `number`-th matching request, `seconds` after the start."""
        in_time = self.until_seconds is None or seconds < self.until_seconds
        in_count = self.count is None or number < self.first + self.count
        return in_time and in_count and number >= self.first


class FaultPlan:
    """The faults of a mirror; the first that hits a request is the one that happens."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)
        self._seen = [0] * len(self._faults)
        self._lock = threading.Lock()

    def replace(self, faults: Iterable[Fault]) -> None:
        """Forget the plan and its counts, and take this one from now on."""
        with self._lock:
            self._faults = list(faults)
            self._seen = [0] * len(self._faults)

    def action(self, method: str, path: str, seconds: float) -> Action | None:
        """What to do wrong with this request, if anything; counts it."""
        chosen: Action | None = None
        with self._lock:
            for order, fault in enumerate(self._faults):
                if not fnmatchcase(path, fault.match) or fault.method not in (None, method):
                    continue
                self._seen[order] += 1
                if chosen is None and fault.hits(self._seen[order], seconds):
                    chosen = fault.action
        return chosen
