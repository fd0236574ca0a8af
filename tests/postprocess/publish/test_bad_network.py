"""A store behind a bad network: storms of 503, resets, slow answers, credentials that expire."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import servers
import tiny

from mosaic_core.contract.errors import PublishError
from postprocess.objects import s3 as s3_module
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.verify import verify_store

PORTION = 0.3


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on to the real store, or spoils them as `spoil` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Proxy

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        spoiled = self.server.spoil()
        if spoiled == "reset":
            self._reset()
            return
        if spoiled is not None:
            self._answer(int(spoiled), {"Content-Type": "application/xml"}, b"<Error/>")
            return
        backend = http.client.HTTPConnection(self.server.backend)
        backend.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = backend.getresponse()
        content = answer.read()
        spoiled = self.server.spoil_answer()
        if spoiled == "reset":
            self._reset()
            return
        self._answer(answer.status, dict(answer.getheaders()), content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        size = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Proxy(ThreadingHTTPServer):
    """`before` and `after` choose what to spoil: before the store saw it, or its answer."""

    daemon_threads = True

    def __init__(self, backend: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = backend
        self.chance = random.Random(1)
        self.before: tuple[str | None, ...] = (None,)
        self.after: tuple[str | None, ...] = (None,)
        self.passed = 0
        self.spoiled = 0
        self.deny_after: int | None = None

    def spoil(self) -> str | None:
        self.passed += 1
        if self.deny_after is not None and self.passed > self.deny_after:
            return "403"
        return self._chosen(self.before)

    def spoil_answer(self) -> str | None:
        return self._chosen(self.after)

    def _chosen(self, kinds: tuple[str | None, ...]) -> str | None:
        kind = self.chance.choice(kinds) if self.chance.random() < PORTION else None
        self.spoiled += kind is not None
        return kind

    def handle_error(self, *_: object) -> None:
        """A reset connection is meant."""


@contextmanager
def _proxied(server: servers.Server) -> Iterator[_Proxy]:
    proxy = _Proxy(urlsplit(server.endpoint).netloc)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    with server.environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.server_port}"):
        yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def proxy(s3: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Proxy]:
    from datetime import timedelta

    quick = {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(milliseconds=50),
        "base": 2,
    }
    monkeypatch.setitem(s3_module._RETRY, "backoff", quick)
    with _proxied(s3) as found:
        yield found


@pytest.mark.parametrize("kinds", [("503",), ("500", "503", "429"), ("reset",)])
def test_storms_before_the_store_are_waited_out(
    proxy: _Proxy, s3: servers.Server, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    proxy.before = kinds
    address = s3.fresh_root()
    publish(tiny.stage(tmp_path / "s"), address, cycle=tiny.CYCLE, run_id="run-1")
    assert proxy.spoiled > 5
    proxy.before = (None,)
    assert verify_store(address).faults == ()


def test_lost_answers_do_not_make_a_publication_lose_against_itself(
    proxy: _Proxy, s3: servers.Server, tmp_path: Path
) -> None:
    """The store did it, the answer was lost, the retry meets its own success as a conflict."""
    proxy.after = ("reset",)
    address = s3.fresh_root()
    for turn in range(4):
        cycle = tiny.CYCLE.shift(6 * turn)
        staged = tiny.stage(tmp_path / str(turn), cycle)
        pointer = publish(staged, address, cycle=cycle, run_id="run-1")
        assert pointer.cycle == cycle.label
    assert proxy.spoiled > 10
    proxy.after = (None,)
    assert verify_store(address).faults == ()


def test_a_store_that_is_down_is_a_clear_error(
    proxy: _Proxy, s3: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(s3_module._RETRY, "max_retries", 1)
    proxy.shutdown()
    proxy.server_close()
    with pytest.raises(PublishError, match="the store failed") as caught:
        publish(tiny.stage(tmp_path / "s"), s3.fresh_root(), cycle=tiny.CYCLE, run_id="run-1")
    assert "publish again" in str(caught.value)


@pytest.mark.parametrize("after", [1, 10, 45])
def test_credentials_that_expire_midway_lose_nothing(
    proxy: _Proxy, s3: servers.Server, tmp_path: Path, after: int
) -> None:
    address, older = s3.fresh_root(), tiny.CYCLE.shift(-6)
    publish(tiny.stage(tmp_path / "old", older), address, cycle=older, run_id="run-0")
    proxy.deny_after = proxy.passed + after
    staged = tiny.stage(tmp_path / "s")
    with pytest.raises(PublishError, match="credentials are wrong or expired"):
        publish(staged, address, cycle=tiny.CYCLE, run_id="run-1")
    proxy.deny_after = None
    pointer = read_pointer(address)
    assert pointer is not None
    manifest = published_cycle(address, older)
    assert manifest is not None
    publish(staged, address, cycle=tiny.CYCLE, run_id="run-1")
    latest = read_pointer(address)
    assert latest is not None
    assert latest.cycle == tiny.CYCLE.label
    assert verify_store(address).faults == ()
