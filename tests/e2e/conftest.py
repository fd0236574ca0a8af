"""One made-up mirror and one uninterrupted demonstration, shared by all tests of whole cycles."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.demo import make_analyses
from flows.progress import LogReporter
from tests.factories import DemoFolder, demo_folder


@pytest.fixture(scope="session")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyses") / "mirror"
    make_analyses(folder, LogReporter())
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, analyses: Path) -> DemoFolder:
    """The demonstration, run once without interruption."""
    folder = demo_folder(tmp_path_factory.mktemp("finished") / "demo", analyses)
    folder.finish()
    return folder


@pytest.fixture
def fresh(tmp_path: Path, analyses: Path) -> DemoFolder:
    """A folder in which nothing was run."""
    return demo_folder(tmp_path / "demo", analyses)
