"""The rooms, the doors between them, and what importing a room may load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {"flows", "mosaic_core", "ingest", "postprocess", "deploy", "tests"}
TOP_FILES = {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "constraints.txt"}


def loaded_by(statement: str) -> set[str]:
    """Names of the top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def modules_of(package: str) -> str:
    """An import statement for every module of a package."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return "import " + ", ".join(name.removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("package", ["ingest", "postprocess", "mosaic_core/contract"])
def test_rooms_without_torch_and_prefect(package: str) -> None:
    loaded = loaded_by(modules_of(package))
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "triton", "prefect"})


def test_the_package_mosaic_core_loads_nothing() -> None:
    assert loaded_by("import mosaic_core").isdisjoint({"torch", "numpy", "xarray"})


def test_the_command_line_starts_without_torch_and_prefect() -> None:
    loaded = loaded_by("import flows.cli.main")
    assert loaded.isdisjoint({"torch", "triton", "prefect", "zarr", "matplotlib"})


def test_import_contracts_hold() -> None:
    """The contracts in pyproject.toml; import-linter prints the chain that breaks one."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_the_top_level_is_the_agreed_one() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.splitlines()
    first = {line.split("/")[0] for line in listed if not line.startswith(".")}
    assert first <= TOP_LEVEL | TOP_FILES
