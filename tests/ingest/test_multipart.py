from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.fetch import DATA, fetch_analysis
from ingest.multipart import byte_pieces
from ingest.sources import Source, analysis_files, source_named
from ingest.synthetic.faults import Cut, Fault, NewTag
from ingest.synthetic.mirror import Mirror, Ranges
from ingest.transfer import TransferPolicy
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import SourceError

CYCLE = Cycle.parse("2026-11-23T00Z")
POLICY = TransferPolicy(
    read_seconds=1.0, total_seconds=20.0, attempts=4, backoff_seconds=0.01,
    backoff_limit_seconds=0.05,
)  # fmt: skip


@pytest.fixture
def tree(make_upload: Callable, tmp_path: Path) -> Path:
    """Unwanted messages of 600 kB between the wanted ones, so that five ranges are needed."""
    upload = make_upload(CYCLE)
    for place in (60, 45, 30, 15):
        upload.messages.insert(place, bytes(600_000))
        upload.rows.insert(place, upload.row("filler") | {"param": "skt"})
    upload.reindex()
    root = tmp_path / "tree"
    location = analysis_files(CYCLE, Source("x", str(root)))
    contents = {location.data_url: upload.data(), location.index_url: upload.index()}
    for address, content in contents.items():
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        Path(address).write_bytes(content)
    return root


def fetched(
    tree: Path, folder: Path, *, several: bool, **options: object
) -> tuple[bytes, list[str]]:
    """The data file, and the Range header of each GET for data."""
    with Mirror(tree, **options) as mirror:
        source = Source("test", mirror.url, multi_range=several)
        fetch_analysis(CYCLE, source, folder, policy=POLICY)
        asked = [request.range for request in mirror.log if request.range]
    return (folder / DATA).read_bytes(), asked


def test_several_ranges_travel_in_one_request(tree: Path, tmp_path: Path) -> None:
    one_by_one, asked = fetched(tree, tmp_path / "a", several=False)
    assert len(asked) == 5
    at_once, asked = fetched(tree, tmp_path / "b", several=True)
    assert len(asked) == 1
    assert asked[0].count(",") == 4
    assert at_once == one_by_one


@pytest.mark.parametrize("support", [Ranges.REFUSE_MULTI, Ranges.WHOLE_FOR_MULTI])
def test_a_mirror_that_refuses_gets_single_ranges(
    support: Ranges, tree: Path, tmp_path: Path
) -> None:
    expected, _ = fetched(tree, tmp_path / "a", several=False)
    content, asked = fetched(tree, tmp_path / "b", several=True, ranges=support)
    assert content == expected
    assert len(asked) == 6


def test_ignored_ranges_are_refused_here_too(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ignores byte ranges"):
        fetched(tree, tmp_path / "a", several=True, ranges=Ranges.IGNORED)


def test_a_cut_answer_is_taken_up_where_it_ended(tree: Path, tmp_path: Path) -> None:
    expected, _ = fetched(tree, tmp_path / "a", several=False)
    cut = Fault("*.grib2", Cut(1_500_000), method="GET", count=2)
    content, asked = fetched(tree, tmp_path / "b", several=True, faults=[cut])
    assert content == expected
    assert len(asked) == 3
    assert asked[0].count(",") > asked[2].count(",")


def test_another_version_is_refused_here_too(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="changed between"):
        fetched(tree, tmp_path / "a", several=True, faults=[Fault("*.grib2", NewTag())])


def test_ecmwfs_own_server_is_asked_for_several() -> None:
    assert source_named("ecmwf").multi_range
    assert not replace(source_named("google")).multi_range


def body(parts: list[tuple[int, bytes]], size: int) -> bytes:
    text = b""
    for start, content in parts:
        span = f"bytes {start}-{start + len(content) - 1}/{size}"
        text += f"\r\n--x\r\nContent-Type: a/b\r\nContent-Range: {span}\r\n\r\n".encode() + content
    return text + b"\r\n--x--\r\n"


def read(content: bytes, block: int, size: int = 100) -> dict[int, bytes]:
    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), block):
            yield content[start : start + block]

    async def collect() -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        async for offset, piece in byte_pieces(blocks(), size, "here"):
            for index, byte in enumerate(piece):
                found[offset + index] = bytes([byte])
        return found

    return asyncio.run(collect())


@pytest.mark.parametrize("block", [1, 2, 7, 50, 1000])
def test_pieces_do_not_depend_on_how_the_body_arrives(block: int) -> None:
    found = read(body([(10, b"abc\r\n\r\n--x"), (50, b"z"), (60, b"12345")], 100), block)
    assert b"".join(found[n] for n in range(10, 20)) == b"abc\r\n\r\n--x"[:10]
    assert found[50] == b"z"
    assert b"".join(found[n] for n in range(60, 65)) == b"12345"
    assert len(found) == 16


@pytest.mark.parametrize(
    "content",
    [
        body([(10, b"abc")], 99),
        b"--x\r\nContent-Type: a/b\r\n\r\nabc",
        b"x" * 10_000,
    ],
)
def test_what_is_no_such_body_is_refused(content: bytes) -> None:
    with pytest.raises(SourceError, match="here: the answer to several ranges holds"):
        read(content, 100)
