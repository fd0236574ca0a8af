"""A bad network in front of a real store: an HTTP proxy on the loopback that spoils requests."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import servers

_BLOCK_BYTES = 1 << 16
_VARIABLES = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}


class Proxy(ThreadingHTTPServer):
    """Spoils a `portion` of the requests, each in a way drawn from `before` or `after`.

    `before` the store saw the request: a status code, "reset" (the connection, after the whole
    request), "halfway" (the same, in the middle of its body), "stall" (no answer ever). `after`
    the store did it: "reset", "cut" (the answer stops in the middle of its body).
    `deny_after` requests every one is answered with `denial`. `bytes_per_second` is the speed at
    which bodies of requests get through, on each connection. `failing` is a part of an address: any
    request for it is answered with `failure`, all others pass.
    """

    daemon_threads = True

    def __init__(self, server: servers.Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server
        self.backend = urlsplit(server.endpoint).netloc
        self.chance = random.Random(1)
        self.portion = 0.3
        self.before: tuple[str, ...] = ()
        self.after: tuple[str, ...] = ()
        self.bytes_per_second: float | None = None
        self.deny_after: int | None = None
        self.denial = "403"
        self.failing: str | None = None
        self.failure = "503"
        self.passed = 0
        self.spoiled = 0
        self.over = threading.Event()

    def calm(self) -> None:
        """Good weather from now on."""
        self.before, self.after, self.deny_after, self.bytes_per_second = (), (), None, None
        self.failing = None

    def fate_before(self, address: str) -> str | None:
        self.passed += 1
        if self.failing is not None and self.failing in unquote(address):
            return self.failure
        if self.deny_after is not None and self.passed > self.deny_after:
            return self.denial
        return self._drawn(self.before)

    def fate_after(self) -> str | None:
        return self._drawn(self.after)

    def _drawn(self, fates: tuple[str, ...]) -> str | None:
        if not fates or self.chance.random() >= self.portion:
            return None
        self.spoiled += 1
        return self.chance.choice(fates)

    def handle_error(self, *_: object) -> None:
        """A reset connection is meant."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Proxy

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        fate = self.server.fate_before(self.path)
        body = self._body(length // 2 if fate == "halfway" else length)
        if fate == "stall":
            self.server.over.wait(60)
        if fate in ("reset", "halfway", "stall"):
            self._reset()
            return
        if fate is not None:
            self._answer(int(fate), {"Content-Type": "application/xml"}, b"<Error/>")
            return
        status, headers, content = self._asked(body)
        fate = self.server.fate_after()
        if fate == "reset":
            self._reset()
            return
        self._answer(status, headers, content, cut=fate == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _body(self, length: int) -> bytes:
        parts = []
        while length > 0:
            parts.append(self.rfile.read(min(length, _BLOCK_BYTES)))
            length -= len(parts[-1]) or length
            if self.server.bytes_per_second:
                time.sleep(len(parts[-1]) / self.server.bytes_per_second)
        return b"".join(parts)

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        backend = http.client.HTTPConnection(self.server.backend)
        backend.request(self.command, self.path, body=body or None, headers=dict(self.headers))
        answer = backend.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        backend.close()
        return found

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        size = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.wfile.flush()
        if cut:
            self._reset()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def proxied(server: servers.Server) -> Iterator[Proxy]:
    """A proxy in front of `server`, which clients find in their environment."""
    proxy = Proxy(server)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{proxy.server_port}"
    with server.environment(**{_VARIABLES[server.scheme]: address}):
        yield proxy
    proxy.over.set()
    proxy.shutdown()
    proxy.server_close()
