"""A local mirror: a threaded HTTP/1.1 server over a directory, honest or faulty on demand.

Range requests, HEAD, ETag, Last-Modified, If-Match and If-Range, a request log. Listens on the
loopback address only; hidden files and directories do not exist for it.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from ingest.synthetic.answers import Answer, Ranges, Stored, answer_bytes, body_blocks
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


@dataclass(frozen=True)
class Request:
    """A line of the log; `fault` names the action or is ''.

    `sent` counts bytes of the body that were written; it is None until the answer has ended.
    """

    method: str
    path: str
    range: str
    status: int
    sent: int | None
    fault: str
    seconds: float


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
            raise InputError(
                "no such directory", where=str(root), remedy="make a mirror tree first"
            )
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
        """All requests so far, in the order in which their answers began."""
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

    def begin(self, request: Request) -> None:
        """Append a line to the log."""
        with self._lock:
            self._log.append(request)

    def end(self, request: Request, sent: int) -> None:
        """Complete a line, unless the log was cleared meanwhile."""
        with self._lock:
            for position, line in enumerate(self._log):
                if line is request:
                    self._log[position] = replace(request, sent=sent)

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

    def find(self, path: str) -> Stored | None:
        """The object of a URL path; None when there is no such file."""
        names = [name for name in path.split("/") if name]
        if any(name.startswith(".") for name in names):
            return None
        file = self.root.joinpath(*names)
        if not file.is_file():
            return None
        status = file.stat()
        tag = hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
        return Stored(file, status.st_size, f'"{tag[:32]}"', status.st_mtime)


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
        """Answer with headers and body."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer with the headers of a GET."""
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """The mirror keeps its own log."""

    def _serve(self) -> None:
        mirror = self.server.mirror
        path = unquote(urlsplit(self.path).path)
        action = mirror.faults.action(self.command, path, mirror.seconds)
        found = _altered(mirror.find(path), action)
        answer = self._answer(found, action)
        request = Request(
            method=self.command,
            path=path,
            range=self.headers.get("Range", ""),
            status=0 if isinstance(action, Silence) else answer.status,
            sent=None,
            fault=type(action).__name__ if action else "",
            seconds=mirror.seconds,
        )
        mirror.begin(request)
        self._sent = 0
        try:
            self._send(answer, found, action)
        except ConnectionError:
            self.close_connection = True
        finally:
            mirror.end(request, self._sent)

    def _answer(self, found: Stored | None, action: Action | None) -> Answer:
        if isinstance(action, Refuse):
            headers = {"Retry-After": action.retry_after} if action.retry_after else {}
            return Answer(action.status, headers, (f"refused: {action.status}\n".encode(),))
        if found is None:
            return Answer(404, {}, (b"no such object\n",))
        if self.headers.get("If-Match", found.etag) not in (found.etag, "*"):
            return Answer(412, {"ETag": found.etag})
        asked = self.headers.get("Range", "")
        if self.headers.get("If-Range", found.etag) != found.etag:
            asked = ""
        if isinstance(action, IgnoreRange):
            asked = ""
        return answer_bytes(found, asked, self.server.mirror.ranges)

    def _send(self, answer: Answer, found: Stored | None, action: Action | None) -> None:
        if isinstance(action, Silence):
            return self._hang()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command == "GET":
            self._send_body(answer, found, action)
        return None

    def _send_body(self, answer: Answer, found: Stored | None, action: Action | None) -> None:
        limit = action.after_bytes if isinstance(action, Stall | Reset | Cut) else answer.length
        flip = action.offset if isinstance(action, FlipByte) else None
        rate = action.bytes_per_second if isinstance(action, Drip) else None
        self._pour(body_blocks(answer, found, flip), limit, rate)
        if isinstance(action, Stall):
            self._hang()
        elif isinstance(action, Reset):
            self._reset()
        elif isinstance(action, Cut):
            self.close_connection = True

    def _pour(self, blocks: Iterator[bytes], limit: int, rate: int | None) -> None:
        piece = _BLOCK_BYTES if rate is None else max(rate // 10, 1)
        for block in blocks:
            for start in range(0, len(block), piece):
                part = block[start : start + min(piece, limit - self._sent)]
                self.wfile.write(part)
                self._sent += len(part)
                if self._sent >= limit:
                    return
                if rate is not None and self.server.mirror.stopped.wait(len(part) / rate):
                    raise ConnectionAbortedError

    def _hang(self) -> None:
        self.wfile.flush()
        while not self.server.mirror.stopped.wait(0.05) and not self._client_gone():
            pass
        self.close_connection = True

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


def _altered(found: Stored | None, action: Action | None) -> Stored | None:
    if isinstance(action, Replace):
        tag = hashlib.sha256(action.content).hexdigest()[:32]
        return Stored(action.content, len(action.content), f'"{tag}"', time.time())
    if found is None:
        return None
    if isinstance(action, HalfUploaded):
        return replace(
            found, size=int(found.size * action.fraction), etag=f'"{secrets.token_hex(8)}"'
        )
    if isinstance(action, NewTag):
        return replace(found, etag=f'"{secrets.token_hex(16)}"', modified=time.time())
    return found
