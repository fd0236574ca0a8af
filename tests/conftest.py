"""One made-up mirror and one uninterrupted demonstration, shared by all tests of whole cycles.

What the fixtures need is imported in them: kernels are tested on machines without the rest.
Without a GPU, kernels run through Triton's interpreter. That is decided when a kernel module is
first imported, whichever test does so: hence here. So it is with gcsfs, which else asks Google for
the layout of a test server's bucket.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.factories import DemoFolder

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def analyses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up analyses of the demonstration, as a mirror tree."""
    from flows.demo import make_analyses
    from flows.progress import LogReporter

    folder = tmp_path_factory.mktemp("analyses") / "mirror"
    make_analyses(folder, LogReporter())
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, analyses: Path) -> DemoFolder:
    """The demonstration, run once without interruption."""
    from tests.factories import demo_folder

    folder = demo_folder(tmp_path_factory.mktemp("finished") / "demo", analyses)
    folder.finish()
    return folder


@pytest.fixture
def fresh(tmp_path: Path, analyses: Path) -> DemoFolder:
    """A folder in which nothing was run."""
    from tests.factories import demo_folder

    return demo_folder(tmp_path / "demo", analyses)
