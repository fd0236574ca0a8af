"""The log as JSON: one object a line, with what it is about."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.logs import RUN_VARIABLE, JsonLines, about
from flows.progress import LogReporter
from flows.receipts import recorded
from tests.flows.records import NEWEST


@pytest.fixture
def lines() -> Any:
    """What `mosaic_ops` logs meanwhile, each line parsed."""
    found: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = JsonLines().format(record)
            assert "\n" not in text
            found.append(json.loads(text))

    logger, handler = logging.getLogger("mosaic_ops"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_a_stage_says_its_cycle_stage_and_run(
    tmp_path: Path, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "5f0a")
    with recorded("fetch", NEWEST, tmp_path, LogReporter(), "fetching"):
        pass
    logging.getLogger("mosaic_ops").info("after\nit")
    started, done, after = lines
    assert (started["message"], done["message"][:14]) == ("fetching: started", "fetching: done")
    for line in (started, done):
        assert (line["cycle"], line["stage"], line["run"]) == (NEWEST.label, "fetch", "5f0a")
        assert line["level"] == "info"
        assert line["time"].endswith("+00:00")
    assert "cycle" not in after


def test_facts_nest_and_errors_stay_on_their_line(lines: list[dict[str, Any]]) -> None:
    log = logging.getLogger("mosaic_ops")
    with about(cycle="A"), about(stage="rollout"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.warning("failed", exc_info=True)
    assert (lines[0]["cycle"], lines[0]["stage"], lines[0]["level"]) == ("A", "rollout", "warning")
    assert "ValueError: two\nlines" in lines[0]["error"]


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_command_writes_nothing_else(way: str, tmp_path: Path) -> None:
    """Every line on stderr is an object."""
    code = (
        "import logging, click\n"
        "from flows.cli import main\n"
        "main.COMMANDS = {'say': ('__main__', 'say', '')}\n"
        "@click.command()\n"
        "def say():\n"
        "    logging.getLogger('mosaic_ops').info('hello')\n"
        "    raise main.MosaicOpsError('no disk', remedy='buy one')\n"
        "main.main()\n"
    )
    options = ["--log-format", "json"] if way == "option" else []
    environment = {"MOSAIC_OPS_LOG_FORMAT": "json"} if way == "environment" else {}
    done = subprocess.run(
        [sys.executable, "-c", code, *options, "say"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 1
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["message"][:7]) for line in said] == [
        ("info", "hello"),
        ("error", "no disk"),
    ]
