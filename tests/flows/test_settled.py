"""A cycle whose publisher was killed after its pointer is finished by the next who comes by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flows.forecast import forecast_cycle
from flows.orchestration.operations import settle_newest
from flows.progress import LogReporter
from flows.settings import Settings
from flows.watch.status import rows
from postprocess.catalog import read_index
from postprocess.objects.root import open_root
from postprocess.publish import read_pointer
from tests.flows.records import NEWEST, NOW, publish, settings


def run_again(config: Settings) -> None:
    assert not forecast_cycle(NEWEST, config, LogReporter()).made


def reconcile(config: Settings) -> None:
    settle_newest(rows(config, NOW, count=3), config)


@pytest.mark.parametrize("comes_by", [run_again, reconcile])
def test_latest_and_catalogue_follow_the_pointer(
    tmp_path: Path, comes_by: Callable[[Settings], None]
) -> None:
    config = settings(tmp_path)
    publish(config.published, NEWEST, members=4)
    (Path(config.published) / "latest.json").unlink()
    comes_by(config)
    latest = read_pointer(config.published)
    assert latest is not None
    assert latest.path == f"cycles/{NEWEST.id}/r1"
    assert [entry.run_id for entry in read_index(open_root(config.published)).cycles] == ["r1"]


def test_a_store_that_fails_costs_the_reconciler_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path)
    publish(config.published, NEWEST, members=4)
    table = rows(config, NOW, count=3)
    index = Path(config.published) / "index.json"
    index.symlink_to(index)
    settle_newest(table, config)
    assert "catalogue are not brought up to date" in caplog.text
