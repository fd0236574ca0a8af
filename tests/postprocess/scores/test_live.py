"""Published forecasts are scored once each, whoever scores, and again when a better run comes."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from postprocess.objects.root import ObjectRoot, open_root
from postprocess.scores.ledger import read_scores, record, scored_times
from postprocess.scores.live import score_analysis, unscored
from postprocess.scores.summary import finished_scores, rank_histogram
from postprocess.scores.table import COLUMNS, DIGESTS, PLANES
from tests.postprocess.scores.worlds import MEMBERS, Analyses, publish_forecast

FIRST = Cycle.parse("2026-11-23T00Z")
SECOND, VALID = FIRST.shift(6), FIRST.shift(12)


@pytest.fixture(scope="module")
def two_forecasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two forecasts that reach VALID, after 12 and after 6 hours."""
    folder = tmp_path_factory.mktemp("scores")
    publish_forecast(str(folder / "root"), FIRST, folder / "first", error=4.0)
    publish_forecast(str(folder / "root"), SECOND, folder / "second", error=2.0)
    return folder / "root"


@pytest.fixture
def root(two_forecasts: Path, tmp_path: Path) -> ObjectRoot:
    shutil.copytree(two_forecasts, tmp_path / "root")
    return open_root(tmp_path / "root")


def test_an_analysis_scores_every_forecast_valid_then(root: ObjectRoot) -> None:
    scored = score_analysis(root, VALID, Analyses())
    assert scored.forecasts == (FIRST, SECOND)
    assert scored.faults == ()
    scores = finished_scores(read_scores(root)).set_index(
        ["variable", "level_hpa", "region", "lead_hours"]
    )
    assert len(scores) == len(PLANES) * 5 * 2
    late, soon = (scores.loc[("temperature", 850, "global", hours)] for hours in (12, 6))
    # Members are the truth with independent errors: crps is that of a normal law around its centre.
    assert soon["member_rmse"] == pytest.approx(2.0, rel=0.02)
    assert soon["spread"] == pytest.approx(2.0, rel=0.02)
    assert soon["crps"] == pytest.approx(2.0 * (np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi)), rel=0.03)
    assert late["crps"] == pytest.approx(2 * soon["crps"], rel=0.03)
    assert abs(soon["bias"]) < 0.02
    assert soon["crpss"] > late["crpss"] - 1
    assert 0 < soon["persistence_rmse"] < late["persistence_rmse"]


def test_what_was_scored_is_left_alone(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses())
    before = read_scores(root)
    analyses = Analyses()
    assert score_analysis(root, VALID, analyses).forecasts == ()
    assert analyses.reads == []
    pd.testing.assert_frame_equal(read_scores(root), before)


def test_a_new_run_of_a_cycle_replaces_the_scores_of_the_old(
    root: ObjectRoot, tmp_path: Path
) -> None:
    score_analysis(root, VALID, Analyses())
    publish_forecast(root.address, SECOND, tmp_path / "better", error=1.0, run_id="run-2")
    assert [entry.run_id for entry in unscored(root, VALID, Analyses())] == ["run-2"]
    score_analysis(root, VALID, Analyses())
    table = read_scores(root)
    assert set(table[table["init_time"] == SECOND.init_time]["run_id"]) == {"run-2"}
    assert len(table) == len(PLANES) * 5 * 2


def test_without_the_analysis_nothing_is_scored(root: ObjectRoot) -> None:
    assert score_analysis(root, VALID, Analyses(absent={VALID})).forecasts == ()
    assert scored_times(root) == []


def test_without_the_first_analysis_there_is_no_persistence_but_all_else(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses(absent={FIRST, SECOND}))
    scores = finished_scores(read_scores(root))
    assert scores[["persistence_rmse", "crpss"]].isna().all(axis=None)
    assert scores["crps"].notna().all()


@pytest.mark.parametrize(("since", "members"), [(6, (-1, -1)), (12, (0, -1)), (18, (0, 0))])
def test_a_member_is_scored_until_it_is_put_aside(
    since: int, members: tuple[int, int], tmp_path: Path
) -> None:
    """As in the published statistics, which it is part of before that lead."""
    root = open_root(tmp_path / "root")
    reason = f"noise of temperature at 850 hPa is 9, limit 3, at +{since} h"
    publish_forecast(root.address, FIRST, tmp_path / "staged", sick=(f"member 3: {reason}",))
    for hours, fewer in zip((6, 12), members, strict=True):
        score_analysis(root, FIRST.shift(hours), Analyses())
        found = read_scores(root, [FIRST.shift(hours)])
        assert set(found["members"]) == {MEMBERS + fewer}


def test_a_damaged_forecast_is_told_and_the_others_are_scored(root: ObjectRoot) -> None:
    damaged = next(Path(root.address).glob(f"cycles/{FIRST.id}/run-1/forecast.zarr/zarr.json"))
    damaged.write_bytes(damaged.read_bytes().replace(b"temperature", b"temperamure"))
    scored = score_analysis(root, VALID, Analyses())
    assert scored.forecasts == (SECOND,)
    assert FIRST.label in scored.faults[0]
    assert "digest" in scored.faults[0]


def test_a_damaged_analysis_is_told_and_stops_nothing_else(root: ObjectRoot) -> None:
    scored = score_analysis(root, VALID, Analyses(damaged={VALID}))
    assert scored.forecasts == ()
    assert VALID.label in scored.faults[0]
    assert "do not match their digest" in scored.faults[0]
    partly = score_analysis(root, VALID, Analyses(damaged={FIRST}))
    assert (partly.forecasts, len(partly.faults)) == ((SECOND,), 1)


def test_a_damaged_table_is_told(root: ObjectRoot) -> None:
    root.write(f"scores/sums/{VALID.id}.parquet", b"not parquet", cache="no-cache")
    scored = score_analysis(root, VALID, Analyses())
    assert "not a table of scores" in scored.faults[0]
    assert f"{VALID.id}.parquet" in scored.faults[0]


@pytest.mark.parametrize(("corrected", "again"), [(VALID, (FIRST, SECOND)), (SECOND, (SECOND,))])
def test_a_corrected_analysis_is_scored_anew(
    root: ObjectRoot, corrected: Cycle, again: tuple[Cycle, ...]
) -> None:
    score_analysis(root, VALID, Analyses())
    before = read_scores(root)
    analyses = Analyses(corrected={corrected})
    assert score_analysis(root, VALID, analyses).forecasts == again
    after = read_scores(root)
    assert len(after) == len(before)
    column = "mean_error" if corrected == VALID else "persistence_absolute"
    assert (after[column] != before[column])[after["init_time"] == SECOND.init_time].all()
    assert score_analysis(root, VALID, analyses).forecasts == ()


def test_an_analysis_that_left_the_archive_changes_nothing(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses())
    assert score_analysis(root, VALID, Analyses(absent={FIRST})).forecasts == ()


def test_an_initial_analysis_that_comes_late_adds_persistence(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses(absent={FIRST}))
    assert score_analysis(root, VALID, Analyses()).forecasts == (FIRST,)
    assert read_scores(root)["persistence_absolute"].notna().all()


def test_a_table_without_digests_is_read_and_scored_once_more(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses())
    before = read_scores(root)
    content = io.BytesIO()
    before.drop(columns=list(DIGESTS)).to_parquet(content, engine="pyarrow", index=False)
    root.write(f"scores/sums/{VALID.id}.parquet", content.getvalue(), cache="no-cache")
    assert read_scores(root)[list(DIGESTS)].isna().all(axis=None)
    assert score_analysis(root, VALID, Analyses()).forecasts == (FIRST, SECOND)
    pd.testing.assert_frame_equal(read_scores(root), before)
    assert score_analysis(root, VALID, Analyses()).forecasts == ()


def test_two_that_score_at_once_lose_nothing(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses())
    table = read_scores(root)
    halves = [table[table["init_time"] == cycle.init_time] for cycle in (FIRST, SECOND)]
    other = FIRST.shift(18)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            list(pool.map(lambda rows: record(root, other, rows), halves))
            assert len(read_scores(root, [other])) == len(table)
            root.delete([f"scores/sums/{other.id}.parquet"])


def test_a_table_that_is_no_table_names_itself(root: ObjectRoot) -> None:
    root.write(f"scores/sums/{VALID.id}.parquet", b"not parquet", cache="no-cache")
    with pytest.raises(PublishError, match="not a table of scores") as failure:
        read_scores(root)
    assert VALID.id in str(failure.value)


def test_nothing_scored_is_an_empty_table(tmp_path: Path) -> None:
    table = read_scores(open_root(tmp_path))
    assert list(table.columns) == list(COLUMNS)
    assert finished_scores(table).empty


def test_ranks_of_all_forecasts_add_up(root: ObjectRoot) -> None:
    score_analysis(root, VALID, Analyses())
    histogram = rank_histogram(read_scores(root))
    assert histogram.shape == (MEMBERS + 1,)
    assert histogram.mean() == pytest.approx(1)
    # Members scatter around the truth, so it is seldom outside of them.
    assert histogram[0] < 0.5 < histogram[2]
