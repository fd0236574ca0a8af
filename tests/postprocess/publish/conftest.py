"""Real object stores for the tests, started once: SeaweedFS (S3) and fake-gcs-server (GCS)."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import gcsfs
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "store")]

import servers  # noqa: E402
from proxy import Proxy, proxied  # noqa: E402

from postprocess.objects import s3 as s3_module  # noqa: E402

BACKOFF = {
    "init_backoff": timedelta(milliseconds=5),
    "max_backoff": timedelta(milliseconds=50),
    "base": 2,
}


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(params=["folder", "s3", "gcs"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty root on each kind of store, with the environment that its client reads."""
    if request.param == "folder":
        yield str(tmp_path / "published")
        return
    server: servers.Server = request.getfixturevalue(request.param)
    with server.environment():
        yield server.fresh_root()


async def _briefly(seconds: float) -> None:
    await asyncio.sleep(seconds / 100)


@pytest.fixture
def s3_proxy(s3: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A bad network in front of S3, for a client that pauses less between its tries."""
    monkeypatch.setitem(s3_module._RETRY, "backoff", BACKOFF)
    with proxied(s3) as found:
        yield found


@pytest.fixture
def gcs_proxy(gcs: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The same in front of Google's store."""
    monkeypatch.setattr("gcsfs.retry.asyncio", types.SimpleNamespace(sleep=_briefly))
    gcsfs.GCSFileSystem.clear_instance_cache()
    with proxied(gcs) as found:
        yield found
    gcsfs.GCSFileSystem.clear_instance_cache()


async def _briefly(seconds: float) -> None:
    await asyncio.sleep(seconds / 100)


@pytest.fixture(params=["s3", "gcs"])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    """Either of them."""
    found: Proxy = request.getfixturevalue(f"{request.param}_proxy")
    return found
