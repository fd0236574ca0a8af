"""What tests of several rooms build: the demonstration as a job in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from postprocess.publish import read_pointer

MEMBERS, STEPS = 2, 2


@dataclass(frozen=True)
class DemoFolder:
    """A folder in which the demonstration runs, with the analyses of all the others."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def published(self) -> Path:
        return self.data / "published"

    @property
    def run(self) -> Path:
        """The folder of the published run."""
        pointer = read_pointer(self.published)
        assert pointer is not None
        return self.published / pointer.path

    def command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("mosaic-ops"))
        sizes = ["--members", str(MEMBERS), "--steps", str(STEPS)]
        return [program, "demo", "--output", str(self.path), *sizes]

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def finish(self) -> str:
        """Run to the end; its output."""
        with self.start() as process:
            output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        return output


def demo_folder(path: Path, analyses: Path) -> DemoFolder:
    path.mkdir()
    (path / "mirror").symlink_to(analyses)
    return DemoFolder(path)
