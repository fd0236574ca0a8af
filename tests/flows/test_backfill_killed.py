"""Two weeks of cycles, killed twice: nothing is fetched, computed or published twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from tests.flows import toy_stages
from tests.flows.installation import Installation, until

FIRST, COUNT = Cycle.parse("2026-10-01T00Z"), 56
LAST = FIRST.shift(6 * (COUNT - 1))
COMMAND = ("backfill", FIRST.label, LAST.label, "--here", "--dask", "threads")
MIRROR = "near=http://mirror.invalid/forecasts"


def start(installed: Installation) -> subprocess.Popen[bytes]:
    code = "import toy_flows; from flows.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND],
        env=installed.environment,
        cwd=installed.folder,
        stdout=subprocess.DEVNULL,
    )


def done(settings: Settings, kind: str) -> Counter[str]:
    """Pieces of work of a kind, without the process that did them."""
    places = 3 if kind == "step" else 2
    lines = (line.split() for line in toy_stages.ledger(settings))
    return Counter(" ".join(words[1:places]) for words in lines if words[0] == kind)


@pytest.mark.e2e
def test_a_backfill_that_is_killed_twice(tmp_path: Path) -> None:
    installed = Installation.at("", tmp_path, MOSAIC_OPS_MIRRORS=MIRROR, MOSAIC_OPS_MEMBERS="2")
    settings = Settings(data_root=tmp_path / "data", variant="mini")
    toy_stages.offer(settings, *(FIRST.shift(6 * place) for place in range(-3, COUNT)))
    planned = installed.command(*COMMAND, "--dry-run").stdout
    assert "56 cycles to run, 2026-10-01T00Z to 2026-10-14T18Z" in planned
    to_fetch = int(re.search(r"(\d+) to fetch", planned)[1])  # type: ignore[index]
    assert not toy_stages.ledger(settings)

    for kind, reached in (("fetch", 20), ("publish", 15)):
        killed = start(installed)
        until(lambda k=kind, n=reached: len(done(settings, k)) >= n, 120, f"{reached} of {kind}")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    said = installed.command(*COMMAND).stdout

    assert re.search(r"(\d+) of \1 cycles published, 0 failed", said)
    assert len(done(settings, "fetch")) == to_fetch == COUNT + 3
    assert set(done(settings, "fetch").values()) == {1}
    assert set(done(settings, "publish").values()) == {1}
    assert all(
        toy_stages.published_address(FIRST.shift(6 * place), settings) for place in range(COUNT)
    )
    again = installed.command(*COMMAND).stdout
    assert "56 are published already" in again
    assert "0 of 0 cycles published" in again
