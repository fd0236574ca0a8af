"""A history with a hole: another mirror first, then the forecast valid then, else a refusal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.demo import CYCLE, SEED, Demo, make_weights
from flows.ensemble import read_state
from flows.forecast import ingest_analysis, obtain_history, plainly
from flows.orchestration.exhibits import verdict_table
from flows.progress import LogReporter
from flows.provenance import input_analyses
from flows.settings import Settings
from flows.stages import history, initial_state
from flows.watch.gate import gate_verdicts
from ingest.archive import archived_times, provenance
from ingest.synthetic.faults import Fault, Refuse
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.mutate import kelvin_to_celsius
from ingest.synthetic.tree import make_mirror_tree, mirror_file
from mosaic_core.contract.errors import NotYetAvailable

pytestmark = pytest.mark.e2e
GAP = CYCLE.shift(-12)
REPORT = LogReporter()


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory, analyses: Path) -> Path:
    """The mirror tree without the analysis of GAP, with the 6-h forecast valid then."""
    folder = tmp_path_factory.mktemp("gappy") / "mirror"
    shutil.copytree(analyses, folder)
    missing = mirror_file(folder, GAP)
    missing.data.unlink()
    missing.index.unlink()
    make_mirror_tree(folder, [GAP.shift(-6)], seed=SEED, steps=[6])
    return folder


@pytest.fixture
def settings(tmp_path: Path, gappy: Path) -> Iterator[Settings]:
    with Mirror(gappy) as mirror:
        chosen = Demo(tmp_path).settings(mirror.url)
        make_weights(chosen.weights, REPORT)
        yield chosen


def test_a_forecast_stands_in_for_one_analysis_and_every_record_says_so(
    settings: Settings,
) -> None:
    obtain_history(CYCLE, settings, REPORT, plainly)
    assert GAP.init_time not in archived_times(settings.archive)
    lines = input_analyses(read_state(initial_state(CYCLE, settings, REPORT)))
    assert [line.split(" from ")[0] for line in lines] == [
        f"{CYCLE.shift(-18)} analysis",
        f"{GAP} 6-h forecast",
        f"{CYCLE.shift(-6)} analysis",
        f"{CYCLE} analysis",
    ]
    # Twelve hours after the last analysis the heights have changed by more than in six.
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["pass", "pass", "warn", "pass"]
    judged = gate_verdicts(history(CYCLE, settings), settings.fills, settings.archive)
    assert [verdict.outcome.value for verdict in judged.values()] == [
        "pass",
        "pass",
        "warn",
        "pass",
    ]
    assert "| imprint of mountains | " in verdict_table(judged[GAP])


def test_analyses_only_is_a_setting(settings: Settings) -> None:
    strict = settings.model_copy(update={"forecast_fills": 0})
    with pytest.raises(NotYetAvailable, match=GAP.label):
        obtain_history(CYCLE, strict, REPORT, plainly)


def test_the_newest_analysis_is_never_a_forecast(settings: Settings) -> None:
    lenient = settings.model_copy(update={"forecast_fills": 3})
    with pytest.raises(NotYetAvailable, match=f"cycle {GAP.label}"):
        obtain_history(GAP, lenient, REPORT, plainly)


def test_where_one_mirror_gives_nonsense_another_is_asked(tmp_path: Path, analyses: Path) -> None:
    newest = CYCLE.shift(-18)
    source, target = (mirror_file(root, newest) for root in (analyses, tmp_path / "wrong"))
    shutil.copytree(source.data.parent, target.data.parent)
    kelvin_to_celsius(target)
    late = Fault("*", Refuse(404), count=1)
    with Mirror(tmp_path / "wrong") as wrong, Mirror(analyses, faults=[late]) as right:
        mirrors = (f"wrong={wrong.url}", f"right={right.url}")
        settings = Demo(tmp_path).settings(wrong.url).model_copy(update={"mirrors": mirrors})
        make_weights(settings.weights, REPORT)
        ingest_analysis(newest, settings, REPORT)
    assert provenance(settings.archive)[newest.init_time]["source"] == "right"
