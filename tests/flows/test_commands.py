"""Every command of the table exists, explains itself, and answers errors in one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flows.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(Path(sys.executable).with_name("mosaic-ops"))


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command below a group."""
    found = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        here = (*path, name)
        found += leaves(command, here) if isinstance(command, click.Group) else [here]
    return found


def test_every_command_has_a_help_page() -> None:
    words = leaves(cli)
    assert {first for first, *_ in words} == set(COMMANDS)
    for path in words:
        result = CliRunner().invoke(cli, [*path, "--help"])
        assert result.exit_code == 0, result.output
        assert result.output.startswith("Usage:")
        described = result.output.split("Options:")[0].splitlines()[1:]
        assert any(line.strip() for line in described), f"{path} has no description"


def run(
    *words: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, cwd=cwd, env=env, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "2026-11-23T03Z"), 2, "is not a cycle"),
        (("run", "tomorrow"), 2, "cannot read 'tomorrow' as a cycle"),
        (("run", "2099-01-01T00Z"), 2, "cycle 2099-01-01T00Z is in the future"),
        (("run", "--variant", "gfs"), 2, "unknown variant 'gfs'"),
        (("run", "--members", "0"), 2, "members"),
        (("run", "--members", "1000"), 2, "members"),
        (("run", "--lead-hours", "15", "2026-11-23T00Z"), 2, "not a whole number of 6-h steps"),
        (("run", "--config", "absent.toml"), 2, "absent.toml"),
        (("run", "2026-11-23T00Z", "--mirror", "nowhere"), 2, "unknown mirrors nowhere"),
        (("run", "2026-11-23T00Z"), 6, "mosaic-ops weights fetch hres"),
        (("model", "parity", "absent/case"), 6, "absent/case.json"),
        (("regrid", "absent.grib2", "out.nc"), 2, "absent.grib2"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_errors_are_messages_and_exit_codes(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_the_distributions(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.startswith("mosaic-ops ")


def test_settings_are_listed_with_their_meaning(tmp_path: Path) -> None:
    done = run("settings", "--json", cwd=tmp_path)
    assert '"variant": "hres"' in done.stdout


def test_a_command_that_found_something_wrong_says_so_by_its_exit_code(tmp_path: Path) -> None:
    code = (
        "import click\n"
        "from flows.cli import main\n"
        "main.COMMANDS = {'look': ('__main__', 'look', '')}\n"
        "@click.command()\n"
        "@click.option('--bad', is_flag=True)\n"
        "def look(bad):\n"
        "    if bad: raise click.exceptions.Exit(1)\n"
        "main.main()\n"
    )
    for options, expected in (([], 0), (["--bad"], 1), (["--help"], 0)):
        done = subprocess.run([sys.executable, "-c", code, "look", *options], cwd=ROOT, check=False)
        assert done.returncode == expected, options


def test_a_full_size_model_runs_on_a_cpu_only_on_purpose(tmp_path: Path) -> None:
    """Whoever types it on the wrong machine would hold the cycle's lock for days."""
    weights = tmp_path / "mosaic-data" / "weights" / "hres.safetensors"
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        file.truncate(850_000_000)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    asked = run("run", "2026-11-23T00Z", cwd=tmp_path, env=environment)
    assert asked.returncode == 2, asked.stderr
    assert "where the GPU is; --device cpu" in asked.stderr
    meant = run("run", "2026-11-23T00Z", "--device", "cpu", cwd=tmp_path, env=environment)
    assert meant.returncode == 6, "it goes on, to the statistics that are not there"


def test_a_backfill_asks_for_its_server_before_hours_of_ingest(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    words = ("backfill", "2026-11-01T00Z", "2026-11-01T06Z")
    done = run(*words, cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr
    assert "no Prefect server is named" in done.stderr
    assert not done.stdout, "nothing was planned or fetched"
    assert not (tmp_path / "mosaic-data").exists()


def test_a_worker_with_settings_that_are_wrong_does_not_start(tmp_path: Path) -> None:
    environment = {**os.environ, "MOSAIC_OPS_ALERT_WEBHOOK": "carrier-pigeon://hunter2"}
    done = run("worker", "cpu", cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "no service takes this address" in done.stderr
    assert "hunter2" not in done.stderr
