from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mosaic_core import download as module
from mosaic_core.contract.errors import SourceError
from mosaic_core.download import ATTEMPTS, download

CONTENT = bytes(range(256)) * 5000


class Server(ThreadingHTTPServer):
    """Answers by the script: one entry a request, the last one for ever."""

    daemon_threads = True
    script: list[str]
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        script, span = self.server.script, self.headers.get("Range")
        self.server.ranges.append(span)
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer.isdigit():
            self.send_error(int(answer))
            return
        if answer == "moved":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        if answer.startswith("only "):  # ends in good order, and never says how long it is
            self.send_response(200)
            self.end_headers()
            self.wfile.write((CONTENT * 2)[: int(answer[5:])])
            return
        if answer == "page":
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"busy")
            return
        start = int(span[6:-1]) if span and answer != "whole" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 300_000] if answer == "cut" else CONTENT[start:])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.ranges = []
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


def fetch(server: Server, part: Path, *script: str) -> list[str | None]:
    server.script = list(script)
    download(f"http://127.0.0.1:{server.server_port}/file", part, len(CONTENT))
    assert part.read_bytes() == CONTENT
    return server.ranges


def test_all_of_it_and_then_nothing(server: Server, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "part", "all") == [None]
    assert fetch(server, tmp_path / "part", "500") == [None]


@pytest.mark.parametrize(
    ("script", "ranges"),
    [
        (("moved", "all"), [None, None]),
        (("cut", "all"), [None, "bytes=300000-"]),
        (("cut", "503", "cut", "all"), [None, "bytes=300000-", "bytes=300000-", "bytes=600000-"]),
        (("cut", "whole"), [None, "bytes=300000-"]),
        (("cut", "416", "all"), [None, "bytes=300000-", None]),
        (("429", "all"), [None, None]),
    ],
)
def test_it_goes_on_after_each_failure(
    server: Server, tmp_path: Path, script: tuple[str, ...], ranges: list[str | None]
) -> None:
    assert fetch(server, tmp_path / "part", *script) == ranges


def test_a_part_from_an_earlier_process_is_continued(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(CONTENT[:1000])
    assert fetch(server, part, "all") == ["bytes=1000-"]


def test_a_part_that_is_too_long_is_begun_again(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(CONTENT + b"more")
    assert fetch(server, part, "all") == [None]


def test_a_refusal_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="403"):
        fetch(server, tmp_path / "part", "403")
    assert len(server.ranges) == 1


def test_it_gives_up_after_failures_in_a_row_and_keeps_the_part(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="500") as refused:
        fetch(server, tmp_path / "part", "cut", "500")
    assert "goes on where it stopped" in refused.value.remedy
    assert len(server.ranges) == ATTEMPTS
    assert (tmp_path / "part").stat().st_size == 300_000


@pytest.mark.parametrize(
    "script",
    [
        ("only 1000",),
        ("only 0",),
        (f"only {len(CONTENT) + 1}",),
        ("only 1000", *("only 10", "only 1000") * 50),
    ],
)
def test_answers_of_a_wrong_length_are_given_up_with_pauses_between(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: tuple[str, ...]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    with pytest.raises(SourceError, match=f"the answer held .* of {len(CONTENT)} bytes"):
        fetch(server, tmp_path / "part", *script)
    assert len(server.ranges) <= ATTEMPTS + 1
    assert len(pauses) == len(server.ranges) - 1


def test_a_whole_file_of_another_length_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(CONTENT[:1000])
    with pytest.raises(SourceError, match=f"has 4 bytes, {len(CONTENT)} were announced"):
        fetch(server, part, "page")
    assert len(server.ranges) == 1
    assert part.read_bytes() == CONTENT[:1000]


def test_endless_redirects_are_a_refusal(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="redirects"):
        fetch(server, tmp_path / "part", "moved")


def test_progress_ends_at_the_size(server: Server, tmp_path: Path) -> None:
    server.script, told = ["all"], []
    url = f"http://127.0.0.1:{server.server_port}/file"
    download(url, tmp_path / "part", len(CONTENT), lambda done, size: told.append((done, size)))
    assert told[-1] == (len(CONTENT), len(CONTENT))
