from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import servers

from mosaic_core.contract.errors import InputError, PublishError
from postprocess.objects.root import (
    IMMUTABLE,
    MUTABLE,
    MissingObjectError,
    RefusedError,
    open_root,
)


def test_what_is_written_is_read_listed_and_deleted(address: str, tmp_path: Path) -> None:
    root = open_root(address)
    assert root.objects("") == []
    assert root.folders("cycles") == []
    (tmp_path / "file").write_bytes(b"from a file")
    root.write("cycles/a/one.json", b"1", cache=IMMUTABLE)
    root.write("cycles/ab/two", b"22", cache=MUTABLE)
    root.upload("cycles/a/x/file", tmp_path / "file", cache=IMMUTABLE)
    root.upload("cycles/a/x/file", tmp_path / "file", cache=IMMUTABLE)
    root.write("cycles/a/one.json", b"one", cache=IMMUTABLE)
    assert root.read("cycles/a/one.json") == b"one"
    assert root.read("cycles/a/x/file") == b"from a file"
    listed = root.objects("cycles/a")
    assert [(info.key, info.size) for info in listed] == [
        ("cycles/a/one.json", 3), ("cycles/a/x/file", 11)
    ]  # fmt: skip
    assert listed[0].md5 in (None, hashlib.md5(b"one").hexdigest())
    assert abs(datetime.now(UTC) - listed[0].modified) < timedelta(minutes=1)
    assert len(root.objects("")) == 3
    assert root.folders("cycles") == ["a", "ab"]
    root.delete(["cycles/a/one.json", "cycles/a/x/file", "cycles/never"])
    assert [info.key for info in root.objects("")] == ["cycles/ab/two"]
    assert "ab" in root.folders("cycles")


def test_a_missing_object_is_named(address: str) -> None:
    with pytest.raises(MissingObjectError, match="cycles/nothing"):
        open_root(address).read("cycles/nothing")
    assert open_root(address).read_tagged("cycles/nothing") is None


def test_swap_wants_the_version_it_was_told(address: str) -> None:
    root = open_root(address)
    assert root.swap("p.json", b"1", expected=None, cache=MUTABLE)
    assert not root.swap("p.json", b"2", expected=None, cache=MUTABLE)
    first = root.read_tagged("p.json")
    assert first is not None
    assert root.swap("p.json", b"2", expected=first.tag, cache=MUTABLE)
    assert not root.swap("p.json", b"3", expected=first.tag, cache=MUTABLE)
    assert root.read("p.json") == b"2"


def test_of_many_racing_swaps_one_wins(address: str) -> None:
    root = open_root(address)
    root.write("p.json", b"start", cache=MUTABLE)
    for _ in range(5):
        found = root.read_tagged("p.json")
        assert found is not None
        tag, won = found.tag, []

        def swap(name: bytes, tag: str = tag, won: list[bytes] = won) -> None:
            if open_root(address).swap("p.json", name, expected=tag, cache=MUTABLE):
                won.append(name)

        threads = [threading.Thread(target=swap, args=(os.urandom(8),)) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(won) == 1
        assert root.read("p.json") == won[0]


def test_an_unknown_scheme_and_a_missing_bucket_name_are_refused() -> None:
    with pytest.raises(InputError, match="cannot publish to ftp"):
        open_root("ftp://host/x")
    with pytest.raises(InputError, match="no bucket"):
        open_root("s3:///x")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("not a folder")
    with pytest.raises(PublishError, match=r"Not a directory|File exists") as caught:
        open_root(tmp_path).write("a/b", b"", cache=MUTABLE)
    assert "publish again" in str(caught.value)


def test_cache_control_is_served(s3: servers.Server, gcs: servers.Server) -> None:
    import urllib.request

    for server, path in ((s3, "/{}"), (gcs, "/download/storage/v1/b/{}?alt=media")):
        with server.environment():
            address = server.fresh_root()
            open_root(address).write("latest.json", b"{}", cache=MUTABLE)
        bucket, _, key = f"{address}/latest.json".partition("://")[2].partition("/")
        place = f"{bucket}/{key}" if server is s3 else f"{bucket}/o/{key.replace('/', '%2F')}"
        with urllib.request.urlopen(server.endpoint + path.format(place)) as answer:
            assert answer.headers["Cache-Control"] == MUTABLE
            assert answer.headers["Content-Type"] == "application/json"


def test_wrong_credentials_and_missing_permission_are_told(s3: servers.Server) -> None:
    for key, secret in (("writer", "wrong"), ("reader", "reader-secret"), ("nobody", "x")):
        with s3.environment(AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret):
            root = open_root(s3.fresh_root())
            with pytest.raises(PublishError, match="no permission, or the credentials") as caught:
                root.write("a", b"", cache=MUTABLE)
            assert "AWS_" in str(caught.value)


def test_a_missing_bucket_is_told(gcs: servers.Server, s3: servers.Server) -> None:
    with gcs.environment(), pytest.raises(PublishError, match="bucket does not exist"):
        open_root("gs://nowhere/x").write("a", b"", cache=MUTABLE)
    with s3.environment(), pytest.raises(PublishError, match="bucket does not exist"):
        open_root("s3://nowhere/x").read("a")
    reader = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
    with s3.environment(**reader), pytest.raises(PublishError, match="s3://nowhere"):
        open_root("s3://nowhere/x").write("a", b"", cache=MUTABLE)


@contextmanager
def forbidden(folder: Path) -> Iterator[None]:
    """A folder that this process may not look into; root becomes nobody for that while."""
    me = os.geteuid()
    folder.chmod(0)
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)
        folder.chmod(0o755)


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    root = open_root(tmp_path / "root")
    (tmp_path / "file").write_bytes(b"x")
    root.write("cycles/a/b/one", b"1", cache=IMMUTABLE)
    for look in (
        lambda: root.objects(""),
        lambda: root.objects("cycles/a"),
        lambda: root.folders("cycles"),
        lambda: root.read("cycles/a/b/one"),
        lambda: root.upload("cycles/a/b/one", tmp_path / "file", cache=IMMUTABLE),
    ):
        with forbidden(tmp_path / "root"), pytest.raises(RefusedError, match="denied"):
            look()
    with forbidden(tmp_path / "root/cycles/a/b"), pytest.raises(RefusedError, match="denied"):
        root.objects("")
    assert root.objects("cycles/nothing") == []
    assert root.folders("cycles/a/b/one") == []
