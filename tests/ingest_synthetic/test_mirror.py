"""The local mirror over real sockets: honest answers, and each way of misbehaving."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ingest.synthetic.answers import Ranges
from ingest.synthetic.faults import (
    Action,
    Cut,
    Drip,
    Fault,
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
from ingest.synthetic.mirror import Mirror
from mosaic_core.contract.errors import InputError

PATH = "/a/data.bin"
BODY = bytes(np.random.default_rng(5).integers(0, 256, 300_000, dtype=np.uint8))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror over one file, `/a/data.bin` holding BODY, and a hidden one."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data.bin").write_bytes(BODY)
    (tmp_path / "a" / ".hidden").write_bytes(b"secret")
    with Mirror(tmp_path) as mirror:
        yield mirror


@contextmanager
def connection(mirror: Mirror, timeout: float = 5.0) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(urlsplit(mirror.url).netloc, timeout=timeout)
    try:
        yield made
    finally:
        made.close()


def ask(
    mirror: Mirror, path: str = PATH, method: str = "GET", timeout: float = 5.0, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with connection(mirror, timeout) as made:
        made.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        response = made.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def test_whole_object(served: Mirror):
    status, headers, body = ask(served)
    assert (status, body) == (200, BODY)
    assert headers["Content-Length"] == str(len(BODY))
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"].startswith('"')
    assert headers["Last-Modified"].endswith("GMT")


def test_head_has_no_body(served: Mirror):
    status, headers, body = ask(served, method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(BODY))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=10-19", BODY[10:20]),
        ("bytes=299990-", BODY[299_990:]),
        ("bytes=-7", BODY[-7:]),
        ("bytes=299999-400000", BODY[-1:]),
    ],
)
def test_one_range(served: Mirror, asked: str, expected: bytes):
    status, headers, body = ask(served, Range=asked)
    assert (status, body) == (206, expected)
    assert headers["Content-Range"].endswith("/300000")


@pytest.mark.parametrize("asked", ["bytes=x-3", "lines=1-2", "bytes=5"])
def test_what_is_not_a_range_is_ignored(served: Mirror, asked: str):
    assert ask(served, Range=asked)[0] == 200


def test_range_behind_the_end(served: Mirror):
    status, headers, _ = ask(served, Range="bytes=300000-300010")
    assert (status, headers["Content-Range"]) == (416, "bytes */300000")


def test_several_ranges(served: Mirror):
    status, headers, body = ask(served, Range="bytes=0-9,100-109")
    assert status == 206
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert parts[1].partition(b"\r\n\r\n")[2] == BODY[:10] + b"\r\n"
    assert parts[2].partition(b"\r\n\r\n")[2] == BODY[100:110] + b"\r\n"
    assert parts[3] == b"--\r\n"


@pytest.mark.parametrize(
    ("support", "status"),
    [(Ranges.REFUSE_MULTI, 400), (Ranges.WHOLE_FOR_MULTI, 200), (Ranges.IGNORED, 200)],
)
def test_several_ranges_elsewhere(tmp_path: Path, support: Ranges, status: int):
    (tmp_path / "f").write_bytes(BODY)
    with Mirror(tmp_path, ranges=support) as mirror:
        assert ask(mirror, "/f", Range="bytes=0-9,100-109")[0] == status
        single = ask(mirror, "/f", Range="bytes=0-9")[0]
        assert single == (200 if support is Ranges.IGNORED else 206)


@pytest.mark.parametrize("path", ["/nothing", "/a", "/a/.hidden", "/../etc/passwd", "/%2e%2e/x"])
def test_what_is_not_there(served: Mirror, path: str):
    assert ask(served, path)[0] == 404


def test_conditions(served: Mirror):
    tag = ask(served, method="HEAD")[1]["ETag"]
    assert ask(served, If_Match=tag, Range="bytes=0-0")[0] == 206
    assert ask(served, If_Match='"other"')[0] == 412
    assert ask(served, If_Range='"other"', Range="bytes=0-0")[0] == 200


def test_tag_follows_the_content(served: Mirror):
    before = ask(served, method="HEAD")[1]["ETag"]
    (served.root / "a" / "data.bin").write_bytes(BODY[:-1])
    assert ask(served, method="HEAD")[1]["ETag"] != before


def test_connection_is_kept(served: Mirror):
    with connection(served) as made:
        for _ in range(3):
            made.request("GET", PATH, headers={"Range": "bytes=0-9"})
            assert made.getresponse().read() == BODY[:10]
        assert made.sock is not None


def test_log(served: Mirror):
    ask(served, Range="bytes=0-9")
    ask(served, "/nothing")
    while served.log[0].sent is None:
        time.sleep(0.01)
    first, second = served.log
    assert (first.method, first.path, first.range, first.status, first.sent) == (
        "GET", PATH, "bytes=0-9", 206, 10,
    )  # fmt: skip
    assert second.status == 404
    assert served.statuses() == {206: 1, 404: 1}
    served.clear_log()
    assert served.log == ()


def test_serves_many_at_once(served: Mirror):
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(ask(served)[2])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [BODY] * 12


def test_only_this_machine_can_reach_it(served: Mirror):
    assert served.url.startswith("http://127.0.0.1:")


def misbehave(mirror: Mirror, action: Action, **more: object) -> None:
    mirror.faults.replace([Fault("*.bin", action, **more)])  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [401, 403, 404, 416, 429, 500, 503])
def test_refusal(served: Mirror, status: int):
    misbehave(served, Refuse(status, retry_after="3"))
    answer, headers, _ = ask(served)
    assert (answer, headers["Retry-After"]) == (status, "3")
    assert served.log[-1].fault == "Refuse"


def test_refusal_of_some_requests_only(served: Mirror):
    misbehave(served, Refuse(503), first=2, count=2)
    assert [ask(served)[0] for _ in range(5)] == [200, 503, 503, 200, 200]


def test_refusal_of_one_method_only(served: Mirror):
    misbehave(served, Refuse(503), method="HEAD")
    assert ask(served)[0] == 200
    assert ask(served, method="HEAD")[0] == 503


def test_late_upload(served: Mirror):
    misbehave(served, Refuse(404), until_seconds=served.seconds + 0.3)
    assert ask(served)[0] == 404
    time.sleep(0.35)
    assert ask(served)[0] == 200


def test_first_fault_that_hits_wins(served: Mirror):
    served.faults.replace([Fault("*.bin", Refuse(503), count=1), Fault("*", Refuse(429), count=2)])
    assert [ask(served)[0] for _ in range(3)] == [503, 429, 200]


@pytest.mark.parametrize("action", [Silence(), Stall(), Stall(5000)])
def test_hang(served: Mirror, action: Action):
    misbehave(served, action)
    with pytest.raises(TimeoutError):
        ask(served, timeout=0.3)
    served.faults.replace([])
    assert ask(served)[0] == 200


def test_hanging_requests_do_not_outlive_the_mirror(tmp_path: Path):
    (tmp_path / "f.bin").write_bytes(BODY)
    with Mirror(tmp_path, faults=[Fault("*", Stall(10))]) as mirror:
        failure: list[Exception] = []

        def client() -> None:
            try:
                ask(mirror, "/f.bin", timeout=20)
            except (OSError, http.client.HTTPException) as error:
                failure.append(error)

        thread = threading.Thread(target=client)
        thread.start()
        while not mirror.faults._seen[0]:
            time.sleep(0.01)
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert isinstance(failure[0], http.client.IncompleteRead)


def test_drip(served: Mirror):
    misbehave(served, Drip(100_000))
    started = time.monotonic()
    assert ask(served, Range="bytes=0-49999")[2] == BODY[:50_000]
    assert time.monotonic() - started > 0.3


def test_reset(served: Mirror):
    misbehave(served, Reset(100_000))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        ask(served)


def test_cut_body(served: Mirror):
    misbehave(served, Cut(1000))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(served)
    assert cut.value.partial == BODY[:1000]


def test_half_uploaded(served: Mirror):
    honest = ask(served, method="HEAD")[1]
    misbehave(served, HalfUploaded(0.25))
    status, headers, body = ask(served)
    assert (status, body) == (200, BODY[:75_000])
    assert headers["ETag"] != honest["ETag"]
    assert ask(served, Range="bytes=80000-80010")[0] == 416


def test_ignored_range(served: Mirror):
    misbehave(served, IgnoreRange())
    assert ask(served, Range="bytes=0-9")[::2] == (200, BODY)


def test_replaced_object(served: Mirror):
    misbehave(served, Replace(b"old index"))
    assert ask(served)[::2] == (200, b"old index")
    assert ask(served, Range="bytes=4-")[2] == b"index"


def test_new_tag_each_time(served: Mirror):
    misbehave(served, NewTag())
    tags = {ask(served, method="HEAD")[1]["ETag"] for _ in range(3)}
    assert len(tags) == 3


def test_flipped_byte(served: Mirror):
    misbehave(served, FlipByte(70_000))
    body = ask(served)[2]
    assert body[70_000] == BODY[70_000] ^ 0xFF
    assert body[:70_000] + body[70_001:] == BODY[:70_000] + BODY[70_001:]
    assert ask(served, Range="bytes=0-99")[2] == BODY[:100]


def test_other_paths_are_left_alone(served: Mirror):
    served.faults.replace([Fault("*.index", Refuse(503))])
    assert ask(served)[0] == 200


def test_directory_must_exist(tmp_path: Path):
    with pytest.raises(InputError, match="no such directory"):
        Mirror(tmp_path / "missing")


def test_port_must_be_free(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen"):
            Mirror(tmp_path, port=taken.getsockname()[1])
