"""What the README says is true: its examples run, its commands and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.main import cli
from tests.factories import DemoFolder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every shell command: lines of bash blocks and inline code that starts with mosaic-ops."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    inline = re.findall(r"`((?:mosaic-ops|bash) [^`]+)`", README)
    return [line.split("#")[0].strip() for line in lines + inline]


def test_the_scripts_are_there_and_valid() -> None:
    scripts = {word for line in commands() for word in shlex.split(line) if word.endswith(".sh")}
    assert scripts == {"deploy/demo.sh", "deploy/test.sh"}
    for script in scripts:
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize(
    "line", sorted({line for line in commands() if "mosaic-ops" in line and "--help" not in line})
)
def test_every_command_is_accepted(line: str) -> None:
    """Each with `--help` appended: an unknown command or option is refused all the same."""
    words = shlex.split(line)
    words = words[[word.endswith("mosaic-ops") for word in words].index(True) + 1 :]
    options = [word for word in words if word.startswith("-")]
    named = [word for word in words if re.fullmatch("[a-z-]+", word) and word not in options]
    result = CliRunner().invoke(cli, [*named[:2], "--help"])
    if result.exit_code != 0:
        result = CliRunner().invoke(cli, [*named[:1], "--help"])
    assert result.exit_code == 0, result.output
    for option in options:
        assert option in result.output


def test_the_extras_exist() -> None:
    asked = {
        name for extra in re.findall(r"'\.\[([a-z0-9,]+)\]'", README) for name in extra.split(",")
    }
    project = (ROOT / "pyproject.toml").read_text()
    assert asked
    for name in asked:
        assert re.search(rf"^{name} = \[", project, re.MULTILINE), name


def test_links_lead_somewhere() -> None:
    local = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.e2e
def test_the_examples_run(finished: DemoFolder) -> None:
    example = "import matplotlib\nmatplotlib.use('Agg')\n" + "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", example.replace("mosaic-data/published", str(finished.published))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2m_temperature" in done.stdout
    assert "system_id" in done.stdout
