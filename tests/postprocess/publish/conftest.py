"""Real object stores for the tests, started once: SeaweedFS (S3) and fake-gcs-server (GCS)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "store")]

import servers  # noqa: E402


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
