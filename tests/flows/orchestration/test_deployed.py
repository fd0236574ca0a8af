"""What a scheduled run decides before it begins."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from flows.locks import cycle_lock
from flows.orchestration import deployed
from flows.orchestration.deployed import CYCLE_PATTERN, untried_newer
from tests.flows.records import NEWEST, NOW, receipt, settings

OLDER = NEWEST.shift(-12)


def test_a_late_run_makes_way_for_the_newest_cycle(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert untried_newer(OLDER, config, NOW) == NEWEST
    assert untried_newer(NEWEST, config, NOW) is None


def test_it_does_not_once_somebody_has_begun_the_newest(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with cycle_lock(NEWEST, config.locks):
        assert untried_newer(OLDER, config, NOW) is None
    assert untried_newer(OLDER, config, NOW) == NEWEST
    failed = receipt(NEWEST, "wait", 6.8, 9, status="failed", reason="no mirror")
    failed.write(config.receipts)
    assert untried_newer(OLDER, config, NOW) is None


@pytest.mark.parametrize("text", ["2026-11-23T00Z", "20261123T00Z", "2026112300", "2026-11-23 06"])
def test_the_interface_takes_a_cycle(text: str) -> None:
    assert re.search(CYCLE_PATTERN, text)


@pytest.mark.parametrize("text", ["", "today", "../../etc", "2026-11-23", "2026-11-23T00Z; rm"])
def test_the_interface_takes_nothing_else(text: str) -> None:
    assert not re.search(CYCLE_PATTERN, text)


def test_every_flow_reads_the_settings_that_make_its_log() -> None:
    """With log_format json the lines of all of them are for machines."""
    assert inspect.getsource(deployed).count("load_settings(") == 1
    assert "load_settings(" in inspect.getsource(deployed.settings_of_run)
