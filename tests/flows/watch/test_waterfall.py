"""One cycle on the time axis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.operations import status
from flows.receipts import receipts_of
from flows.watch.waterfall import BAR_CHARACTERS, bar, waterfall_lines, waterfall_markdown
from tests.flows.records import NEWEST, history, receipt, settings


def test_the_waterfall_shows_order_length_tries_and_reasons() -> None:
    receipts = [
        receipt(NEWEST, "fetch", 6.8, 60),
        receipt(NEWEST, "rollout", 6.9, 180, attempt=2),
        receipt(NEWEST, "publish", 6.95, 1, status="failed", reason="no space"),
    ]
    visible, _, _, _, *lines = waterfall_markdown(NEWEST, receipts).splitlines()
    assert visible == "2026-11-23T00Z is not visible yet."
    assert lines[0].startswith("| fetched | done | T+6 h 49 min | 60 s | 1 | box | `#")
    assert "| 2 |" in lines[1]
    assert lines[2].startswith("| published | failed | - |")
    assert lines[-1] == "- **publish**: no space"
    bars = [line.split("`")[1] for line in lines[:3]]
    assert {len(each) for each in bars} == {BAR_CHARACTERS}
    assert bars[0].index("#") < bars[1].index("#") <= bars[2].index("#")


@pytest.mark.parametrize(("begin", "length"), [(0, 0), (1, 0), (0, 1), (0.99, 0.5), (0.5, 0.5)])
def test_a_bar_never_leaves_its_line(begin: float, length: float) -> None:
    drawn = bar(begin, length)
    assert len(drawn) == BAR_CHARACTERS
    assert "#" in drawn


def test_a_published_cycle_says_when_it_was_visible(tmp_path: Path) -> None:
    config = settings(tmp_path)
    history(NEWEST, config.receipts, 7.2)
    lines = waterfall_lines(NEWEST, receipts_of(NEWEST, config.receipts))
    assert lines[0] == "2026-11-23T00Z was visible at T+7 h 12 min."
    assert lines[2].split()[:2] == ["once", "done"]
    assert [line.split()[0] for line in lines[3:5]] == ["available", "fetched"]


def test_of_a_cycle_that_nobody_ran_nothing_is_claimed() -> None:
    told = "Nothing is recorded of 2026-11-23T00Z here."
    assert waterfall_lines(NEWEST, ()) == [told]
    assert waterfall_markdown(NEWEST, ()) == told


def test_the_status_of_one_cycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path)
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(config.data_root))
    history(NEWEST, config.receipts, 7.2)
    run, cycle = CliRunner(), NEWEST.label
    found = json.loads(run.invoke(status, [cycle, "--json"], catch_exceptions=False).output)
    assert [each["stage"] for each in found] == [
        each.stage for each in receipts_of(NEWEST, config.receipts)
    ]
    said = run.invoke(status, [NEWEST.shift(-6).label], catch_exceptions=False).output.splitlines()
    assert said[0] == "Nothing is recorded of 2026-11-22T18Z here."
    assert said[1].startswith("It is not published at")
