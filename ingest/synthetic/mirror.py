"""A local mirror: a threaded HTTP/1.1 server over a directory, honest or faulty on demand.

Range requests, HEAD, ETag, Last-Modified, If-Match and If-Range, a request log. Listens on the
loopback address only; hidden files and directories do not exist for it.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import unquote, urlsplit

from ingest.synthetic.faults import (
    Action,
    Cut,
    Drip,
    Fault,
    FaultPlan,
    FlipByte,
    HalfUploaded,
    IgnoreRange,
    NewTag,
    Refuse,
    Replace,
    Reset,
    Silence,
    Stall,
)
from mosaic_core.contract.errors import InputError

_BLOCK_BYTES = 1 << 18
_IDLE_SECONDS = 60.0


class Ranges(StrEnum):
    """What the mirror does with several ranges in one request, or with any."""

    MULTIPART = "multipart"  # 206 multipart/byteranges, like ECMWF's own server
    REFUSE_MULTI = "refuse-multi"  # 400, like Google's storage
    WHOLE_FOR_MULTI = "whole-for-multi"  # 200 with the whole object, like S3
    IGNORED = "ignored"  # 200 with the whole object to every request


@dataclass(frozen=True)
class Request:
    """A line of the log; `sent` counts bytes of the body, `fault` names the action or is ''."""

    method: str
    path: str
    range: str
    status: int
    sent: int
    fault: str
    seconds: float


@dataclass(frozen=True)
class _Object:
    """What is served under a path: a file or bytes, possibly not all of it."""

    source: Path | bytes
    size: int
    etag: str
    modified: float

    def open(self) -> BinaryIO:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass(frozen=True)
class _Answer:
    """Status, headers, and the parts of the body: literal bytes or (start, stop) of the object."""

    status: int
    headers: dict[str, str]
    parts: tuple[bytes | tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self.parts)


class Mirror:
    """Serves `root` at `.url` between `with Mirror(...) as mirror:` and the end of the block.

    `faults` can be replaced while it runs. Raises InputError when the directory is missing or the
    port is taken.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        ranges: Ranges = Ranges.MULTIPART,
        faults: Iterable[Fault] = (),
    ) -> None:
        if not root.is_dir():
            raise InputError("no such directory", where=str(root), remedy="make a mirror tree first")
        self.root = root.resolve()
        self.ranges = ranges
        self.faults = FaultPlan(faults)
        self.stopped = threading.Event()
        self._log: list[Request] = []
        self._lock = threading.Lock()
        self._started = time.monotonic()
        try:
            self._server = _Server(("127.0.0.1", port), self)
        except OSError as error:
            raise InputError(
                f"cannot listen on port {port}: {error.strerror}", remedy="choose another port"
            ) from None

    @property
    def url(self) -> str:
        """Address of the root, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def log(self) -> tuple[Request, ...]:
        """All requests answered so far, in the order in which their answers ended."""
        with self._lock:
            return tuple(self._log)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def statuses(self) -> Counter[int]:
        """How often each status was sent."""
        return Counter(request.status for request in self.log)

    def clear_log(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self._log.clear()

    def record(self, request: Request) -> None:
        """Append a line to the log."""
        with self._lock:
            self._log.append(request)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted."""
        try:
            self._server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self.stopped.set()
            self._server.server_close()

    def find(self, path: str) -> _Object | None:
        """The object of a URL path; None when there is no such file."""
        names = [name for name in path.split("/") if name]
        if any(name.startswith(".") for name in names):
            return None
        file = self.root.joinpath(*names)
        if not file.is_file():
            return None
        status = file.stat()
        tag = hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
        return _Object(file, status.st_size, f'"{tag[:32]}"', status.st_mtime)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], mirror: Mirror) -> None:
        self.mirror = mirror
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what faulty mirrors are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """The mirror keeps its own log."""

    def _serve(self) -> None:
        mirror = self.server.mirror
        path = unquote(urlsplit(self.path).path)
        action = mirror.faults.action(self.command, path, mirror.seconds)
        found = _altered(mirror.find(path), action)
        answer = self._answer(found, action)
        sent = 0
        try:
            sent = self._send(answer, found, action)
        except ConnectionError:
            self.close_connection = True
        finally:
            fault = type(action).__name__ if action else ""
            asked = self.headers.get("Range", "")
            status = 0 if isinstance(action, Silence) else answer.status
            mirror.record(
                Request(self.command, path, asked, status, sent, fault, mirror.seconds)
            )

    def _answer(self, found: _Object | None, action: Action | None) -> _Answer:
        if isinstance(action, Refuse):
            headers = {"Retry-After": action.retry_after} if action.retry_after else {}
            return _Answer(action.status, headers, (f"refused: {action.status}\n".encode(),))
        if found is None:
            return _Answer(404, {}, (b"no such object\n",))
        if self.headers.get("If-Match", found.etag) not in (found.etag, "*"):
            return _Answer(412, {"ETag": found.etag})
        asked = self.headers.get("Range", "")
        if self.headers.get("If-Range", found.etag) != found.etag:
            asked = ""
        if isinstance(action, IgnoreRange):
            asked = ""
        return _ranged(found, asked, self.server.mirror.ranges)

    def _send(self, answer: _Answer, found: _Object | None, action: Action | None) -> int:
        if isinstance(action, Silence):
            return self._hang(0)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command == "HEAD":
            return 0
        limit = action.after_bytes if isinstance(action, Stall | Reset | Cut) else answer.length
        rate = action.bytes_per_second if isinstance(action, Drip) else None
        sent = self._pour(_blocks(answer, found, action), limit, rate)
        if isinstance(action, Stall):
            return self._hang(sent)
        if isinstance(action, Reset):
            self._reset()
        elif isinstance(action, Cut):
            self.close_connection = True
        return sent

    def _pour(self, blocks: Iterator[bytes], limit: int, rate: int | None) -> int:
        sent = 0
        piece = _BLOCK_BYTES if rate is None else max(rate // 10, 1)
        for block in blocks:
            for start in range(0, len(block), piece):
                part = block[start : start + min(piece, limit - sent)]
                self.wfile.write(part)
                sent += len(part)
                if sent >= limit:
                    return sent
                if rate is not None and self.server.mirror.stopped.wait(len(part) / rate):
                    raise ConnectionAbortedError
        return sent

    def _hang(self, sent: int) -> int:
        self.wfile.flush()
        while not self.server.mirror.stopped.wait(0.05) and not self._client_gone():
            pass
        self.close_connection = True
        return sent

    def _client_gone(self) -> bool:
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _reset(self) -> None:
        self.wfile.flush()
        # A lingering time of zero turns the close into a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError


def _altered(found: _Object | None, action: Action | None) -> _Object | None:
    if isinstance(action, Replace):
        tag = hashlib.sha256(action.content).hexdigest()[:32]
        return _Object(action.content, len(action.content), f'"{tag}"', time.time())
    if found is None:
        return None
    if isinstance(action, HalfUploaded):
        return replace(found, size=int(found.size * action.fraction), etag=f'"{secrets.token_hex(8)}"')
    if isinstance(action, NewTag):
        return replace(found, etag=f'"{secrets.token_hex(16)}"', modified=time.time())
    return found


def _ranged(found: _Object, asked: str, support: Ranges) -> _Answer:
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": found.etag,
        "Last-Modified": formatdate(found.modified, usegmt=True),
    }
    if support is not Ranges.IGNORED:
        headers["Accept-Ranges"] = "bytes"
    whole = _Answer(200, headers, ((0, found.size),))
    spans = _spans(asked, found.size)
    if spans is None or support is Ranges.IGNORED:
        return whole
    if not spans:
        return _Answer(416, {"Content-Range": f"bytes */{found.size}"})
    if len(spans) == 1:
        start, stop = spans[0]
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        return _Answer(206, headers, (spans[0],))
    if support is Ranges.MULTIPART:
        return _multipart(spans, found.size, headers)
    return whole if support is Ranges.WHOLE_FOR_MULTI else _Answer(400, {}, (b"InvalidArgument\n",))


def _spans(asked: str, size: int) -> list[tuple[int, int]] | None:
    """The satisfiable (start, stop) of a Range header; None when it must be ignored (RFC 9110)."""
    unit, _, listed = asked.partition("=")
    if unit.strip() != "bytes":
        return None
    spans = []
    for text in listed.split(","):
        first, dash, last = text.strip().partition("-")
        if not dash or not (first + last).isdecimal():
            return None
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start < stop:
            spans.append((start, stop))
    return spans


def _multipart(spans: list[tuple[int, int]], size: int, headers: dict[str, str]) -> _Answer:
    boundary = secrets.token_hex(8)
    parts: list[bytes | tuple[int, int]] = []
    for start, stop in spans:
        lines = (
            f"\r\n--{boundary}",
            "Content-Type: application/octet-stream",
            f"Content-Range: bytes {start}-{stop - 1}/{size}",
            "\r\n",
        )
        parts += ["\r\n".join(lines).encode(), (start, stop)]
    parts.append(f"\r\n--{boundary}--\r\n".encode())
    kind = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return _Answer(206, headers | kind, tuple(parts))


def _blocks(answer: _Answer, found: _Object | None, action: Action | None) -> Iterator[bytes]:
    flip = action.offset if isinstance(action, FlipByte) else None
    for part in answer.parts:
        if isinstance(part, bytes):
            yield part
        elif found is not None:
            yield from _read(found, part, flip)


def _read(found: _Object, span: tuple[int, int], flip: int | None) -> Iterator[bytes]:
    position, stop = span
    with found.open() as file:
        file.seek(position)
        while position < stop:
            block = file.read(min(_BLOCK_BYTES, stop - position))
            if not block:
                return
            if flip is not None and position <= flip < position + len(block):
                changed = bytearray(block)
                changed[flip - position] ^= 0xFF
                block = bytes(changed)
            yield block
            position += len(block)
