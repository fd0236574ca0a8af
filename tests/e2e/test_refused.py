"""An analysis that the gate refuses reaches neither the archive nor the next attempt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows import stages
from flows.demo import CYCLE, Demo, make_weights
from flows.progress import LogReporter
from ingest.archive import archived_times
from ingest.fetch import MANIFEST
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.mutate import kelvin_to_celsius
from ingest.synthetic.tree import mirror_file
from mosaic_core.contract.errors import DataError


@pytest.mark.e2e
def test_celsius_for_kelvin_stops_the_cycle(tmp_path: Path, analyses: Path) -> None:
    source, target = (mirror_file(root, CYCLE) for root in (analyses, tmp_path / "mirror"))
    shutil.copytree(source.data.parent, target.data.parent)
    kelvin_to_celsius(target)
    report = LogReporter()
    with Mirror(tmp_path / "mirror") as mirror:
        settings = Demo(tmp_path).settings(mirror.url)
        make_weights(settings.weights, report)
        found = stages.wait(CYCLE, settings, report)
        folder = stages.fetch(CYCLE, found, settings, report)
        with pytest.raises(DataError, match="temperature"):
            stages.archive(CYCLE, folder, settings, report)
    assert archived_times(settings.archive).size == 0
    assert not (folder / MANIFEST).exists()
