from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.decode import read_headers
from ingest.fetch import DATA, INDEX, MANIFEST, fetch_analysis, is_ready
from ingest.sources import Source, analysis_files
from ingest.transfer import MirrorTrouble, TransferPolicy
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError

GRIB, IDX = "fc.grib2", "fc.index"


def fetched(cycle, mirror, directory, policy, **options) -> FetchManifest:
    return fetch_analysis(cycle, mirror.source, directory, policy=policy, **options)


def passes(*_: object) -> bool:
    """No fault: the request is answered as it should be."""
    return False


def gets(mirror) -> list[str]:
    return [wanted for method, path, wanted in mirror.requests if method == "GET" and wanted]


def assert_nothing_visible(directory: Path) -> None:
    assert not (directory / MANIFEST).exists()
    assert not (directory / DATA).exists()
    assert not list(directory.glob("*.tmp"))


@pytest.fixture
def upload(make_upload, cycle, mirror):
    made = make_upload(cycle)
    mirror.serve(made)
    return made


def test_a_fetch_brings_the_82_messages_and_their_digests(
    cycle, mirror, upload, tmp_path, policy
) -> None:
    seen: list[tuple[int, int]] = []
    manifest = fetched(cycle, mirror, tmp_path, policy, progress=lambda *p: seen.append(p))
    assert len(list(read_headers(tmp_path / DATA))) == 82
    assert (tmp_path / INDEX).read_bytes() == upload.index()
    for file in manifest.files:
        content = (tmp_path / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    assert FetchManifest.read(tmp_path / MANIFEST) == manifest
    assert (manifest.cycle, manifest.source, manifest.era) == (cycle.id, "test", "50r1")
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", DATA, INDEX, MANIFEST]


def test_only_the_wanted_bytes_travel(cycle, mirror, make_upload, tmp_path, policy) -> None:
    """A big unwanted message is left out; a small one is cheaper than another request."""
    upload = make_upload(cycle)
    upload.messages[5] = b"\0" * 1_000_000
    upload.reindex()
    mirror.serve(upload)
    fetched(cycle, mirror, tmp_path, policy)
    gap = upload.rows[5]
    first, second = sorted(gets(mirror), key=lambda span: int(span[6:].split("-")[0]))
    assert first == f"bytes=0-{gap['_offset'] - 1}"
    assert second.startswith(f"bytes={gap['_offset'] + gap['_length']}-")


def test_a_second_run_asks_for_nothing(cycle, mirror, upload, tmp_path, policy) -> None:
    first = fetched(cycle, mirror, tmp_path, policy)
    mirror.requests.clear()
    assert fetched(cycle, mirror, tmp_path, policy) == first
    assert mirror.requests == []


def test_a_damaged_file_is_fetched_again(cycle, mirror, upload, tmp_path, policy) -> None:
    first = fetched(cycle, mirror, tmp_path, policy)
    content = bytearray((tmp_path / DATA).read_bytes())
    content[1000] ^= 1
    (tmp_path / DATA).write_bytes(content)
    again = fetched(cycle, mirror, tmp_path, policy)
    assert again.files == first.files
    assert hashlib.sha256((tmp_path / DATA).read_bytes()).hexdigest() == again.files[0].sha256


@pytest.mark.parametrize("content", [b"", b"{}", b'{"cycle": 3}'])
def test_a_manifest_that_cannot_be_read_is_replaced(
    content, cycle, mirror, upload, tmp_path, policy
) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    assert fetched(cycle, mirror, tmp_path, policy).cycle == cycle.id


def test_a_folder_of_another_cycle_is_not_reused(
    cycle, mirror, make_upload, tmp_path, policy
) -> None:
    for each in (cycle, cycle.shift(-6)):
        mirror.serve(make_upload(each))
    fetched(cycle, mirror, tmp_path, policy)
    assert fetched(cycle.shift(-6), mirror, tmp_path, policy).cycle == cycle.shift(-6).id


def test_a_broken_download_resumes_where_it_stopped(
    cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    mirror.fault(GRIB, passes)  # the HEAD request passes
    mirror.fault(f"GET {analysis_files(cycle, mirror.source).data_url.removeprefix(mirror.root)}",
                 answers.cut_after(150_000), answers.status(403))  # fmt: skip
    with pytest.raises(SourceError, match="403"):
        fetched(cycle, mirror, tmp_path, policy)
    assert_nothing_visible(tmp_path)
    held = sum(part.stat().st_size for part in (tmp_path / "parts").glob("*.part"))
    assert held == 150_000
    mirror.requests.clear()
    fetched(cycle, mirror, tmp_path, policy)
    assert gets(mirror)[0].startswith("bytes=150000-")


def test_parts_of_another_version_are_not_joined(
    cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    url = analysis_files(cycle, mirror.source).data_url
    mirror.fault(
        f"GET {url.removeprefix(mirror.root)}", answers.cut_after(150_000), answers.status(403)
    )
    with pytest.raises(SourceError):
        fetched(cycle, mirror, tmp_path, policy)
    mirror.put(url, upload.data(), etag="v2")
    mirror.requests.clear()
    fetched(cycle, mirror, tmp_path, policy)
    assert gets(mirror)[0].startswith("bytes=0-")


@pytest.mark.parametrize("code", [401, 408, 429, 500, 502, 503])
@pytest.mark.parametrize("request_", ["HEAD", "index", "range"])
def test_passing_trouble_is_survived(
    code, request_, cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    path = analysis_files(cycle, mirror.source).data_url.removeprefix(mirror.root)
    ending = {"HEAD": f"HEAD {path}", "index": IDX, "range": f"GET {path}"}[request_]
    mirror.fault(ending, answers.status(code), answers.status(code))
    fetched(cycle, mirror, tmp_path, policy)


@pytest.mark.parametrize("code", [400, 403, 409, 416])
def test_a_refusing_mirror_is_out_at_once(
    code, cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    mirror.fault(GRIB, passes, answers.status(code))
    with pytest.raises(SourceError, match=f"refuses .HTTP {code}") as caught:
        fetched(cycle, mirror, tmp_path, policy)
    assert "another mirror" in caught.value.remedy
    assert_nothing_visible(tmp_path)


def garbled(handler) -> bool:
    """Bytes that are not in the encoding that the headers say."""
    handler.reply(200, b"no gzip", headers={"Content-Encoding": "gzip"})
    return True


@pytest.mark.parametrize("what", ["redirects", "encoding"])
def test_trouble_that_is_not_the_transports_is_the_mirrors_too(
    what, cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    path = analysis_files(cycle, mirror.source).index_url.removeprefix(mirror.root)
    away = answers.status(302, Location=path)
    mirror.fault(IDX, *([away] * 30 if what == "redirects" else [garbled]))
    with pytest.raises(
        MirrorTrouble, match=r"maximum allowed redirects|while decompressing"
    ) as caught:
        fetched(cycle, mirror, tmp_path, policy)
    assert caught.value.where.endswith(IDX)
    assert_nothing_visible(tmp_path)


def test_404_is_not_yet(cycle, mirror, tmp_path, policy) -> None:
    with pytest.raises(NotYetAvailable, match="404"):
        fetched(cycle, mirror, tmp_path, policy)
    assert not is_ready(cycle, mirror.source, policy)


def test_endless_500_is_given_up(cycle, mirror, answers, upload, tmp_path, policy) -> None:
    mirror.fault(IDX, *[answers.status(500)] * 20)
    with pytest.raises(SourceError, match="gave up after 4 attempts; the last: HTTP 500"):
        fetched(cycle, mirror, tmp_path, policy)


def test_retry_after_is_obeyed(cycle, mirror, answers, upload, tmp_path, policy) -> None:
    asked: list[datetime] = []

    def note(*_: object) -> bool:
        asked.append(datetime.now(UTC))
        return False

    mirror.fault(IDX, answers.status(429, Retry_After="1"), note)
    start = datetime.now(UTC)
    fetched(cycle, mirror, tmp_path, policy)
    assert asked[0] - start >= timedelta(seconds=1)


def test_a_retry_after_beyond_the_deadline_is_refused_at_once(
    cycle, mirror, answers, upload, tmp_path, policy
) -> None:
    mirror.fault(IDX, answers.status(503, Retry_After="3600"))
    with pytest.raises(SourceError, match="HTTP 503; the next attempt would be after"):
        fetched(cycle, mirror, tmp_path, policy)


def test_a_hanging_mirror_is_given_up(cycle, mirror, answers, upload, tmp_path, policy) -> None:
    mirror.fault(IDX, *[answers.stall(1.0)] * 20)
    with pytest.raises(SourceError, match="gave up after 4 attempts"):
        fetched(cycle, mirror, tmp_path, policy)


def test_the_deadline_ends_everything(cycle, mirror, answers, upload, tmp_path) -> None:
    mirror.fault(IDX, *[answers.stall(3.0)] * 20)
    hasty = TransferPolicy(read_seconds=10.0, total_seconds=0.5)
    with pytest.raises(SourceError, match=r"deadline of 0\.5 s"):
        fetched(cycle, mirror, tmp_path, hasty)


def test_a_dead_host_is_a_source_error(cycle, tmp_path, policy) -> None:
    dead = Source("dead", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="gave up after 4 attempts"):
        fetch_analysis(cycle, dead, tmp_path, policy=policy)


def test_ignored_ranges_are_refused(cycle, mirror, answers, upload, tmp_path, policy) -> None:
    path = analysis_files(cycle, mirror.source).data_url.removeprefix(mirror.root)
    mirror.fault(f"GET {path}", answers.ignore_range)
    with pytest.raises(SourceError, match="ignores byte ranges"):
        fetched(cycle, mirror, tmp_path, policy)
    assert_nothing_visible(tmp_path)


def test_a_file_replaced_under_way_is_refused(cycle, mirror, upload, tmp_path, policy) -> None:
    url = analysis_files(cycle, mirror.source).data_url

    def replace(handler: object) -> bool:
        mirror.put(url, upload.data(), etag="v2")
        return False

    mirror.fault(IDX, replace)
    with pytest.raises(SourceError, match=r"changed between two requests .ETag"):
        fetched(cycle, mirror, tmp_path, policy)
    assert_nothing_visible(tmp_path)


def spoil_flip(upload) -> None:
    content = bytearray(upload.messages[3])
    content[-2] ^= 1
    upload.messages[3] = bytes(content)


def spoil_shift(upload) -> None:
    """The index is off by one message."""
    spans = [(row["_offset"], row["_length"]) for row in upload.rows]
    for row, (offset, length) in zip(upload.rows, spans[1:] + spans[:1], strict=True):
        row["_offset"], row["_length"] = offset, length


def spoil_offset(upload) -> None:
    upload.rows[3]["_offset"] += 1


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_flip, "not one whole GRIB2 message"),
        (spoil_shift, "not what the index says: field is"),
        (spoil_offset, "not one whole GRIB2 message"),
    ],
)
def test_a_file_that_disagrees_with_its_index_is_refused(
    spoil, told, cycle, mirror, make_upload, tmp_path, policy
) -> None:
    upload = make_upload(cycle)
    spoil(upload)
    mirror.serve(upload)
    with pytest.raises(DataError, match=told) as caught:
        fetched(cycle, mirror, tmp_path, policy)
    assert "bytes" in caught.value.where
    assert_nothing_visible(tmp_path)
    assert not (tmp_path / "parts").exists()


def test_a_file_of_the_previous_cycle_is_refused(
    cycle, mirror, make_upload, tmp_path, policy
) -> None:
    upload, old = make_upload(cycle), make_upload(cycle.shift(-6))
    upload.messages = old.messages
    mirror.serve(upload)
    with pytest.raises(
        DataError, match=r"reference time is 2026-11-22T18:.*expected 2026-11-23T00"
    ):
        fetched(cycle, mirror, tmp_path, policy)


def test_a_truncated_file_is_not_ready(cycle, mirror, upload, tmp_path, policy) -> None:
    location = analysis_files(cycle, mirror.source)
    mirror.put(location.data_url, upload.data()[:-1000])
    assert not is_ready(cycle, mirror.source, policy)
    with pytest.raises(NotYetAvailable, match="lie outside the file"):
        fetched(cycle, mirror, tmp_path, policy)


def test_tokens_do_not_reach_the_manifest(cycle, mirror, upload, tmp_path, policy) -> None:
    source = mirror.source.with_query("sig=secret")
    for path in list(mirror.objects):
        mirror.objects[f"{path}?sig=secret"] = mirror.objects[path]
    fetch_analysis(cycle, source, tmp_path, policy=policy)
    assert "secret" not in (tmp_path / MANIFEST).read_text()


def test_two_fetchers_of_one_folder_take_turns(cycle, mirror, upload, tmp_path, policy) -> None:
    results: list[FetchManifest] = []
    workers = [
        threading.Thread(target=lambda: results.append(fetched(cycle, mirror, tmp_path, policy)))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results[0] == results[1]
    assert len([r for r in mirror.requests if r[1].endswith(IDX)]) == 1


def test_forecast_steps_are_fetched_too(cycle, mirror, make_upload, tmp_path, policy) -> None:
    mirror.serve(make_upload(cycle, step=6))
    assert "-6h-oper-fc" in fetched(cycle, mirror, tmp_path, policy, step=6).data_url
