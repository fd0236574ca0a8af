"""Kept sums give the same scores whatever they are combined by; a drift is seen, weather is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, area_weights
from postprocess.scores.fields import BASELINE, STATISTICS
from postprocess.scores.regions import REGIONS, region, region_weights
from postprocess.scores.summary import METRICS, drifts, finished_scores, long_table, rank_histogram
from postprocess.scores.table import typed


def rows(crps: list[float], *, lead_hours: int = 24, weight: float = 2.0) -> pd.DataFrame:
    """One global row a valid time, every 6 hours, with these scores."""
    count = len(crps)
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(count) * 6, "h")
    frame = pd.DataFrame(
        {
            "init_time": times - pd.Timedelta(lead_hours, "h"),
            "valid_time": times,
            "lead_hours": lead_hours,
            "variable": "geopotential",
            "level_hpa": 500,
            "units": "m2 s-2",
            "region": "global",
            "run_id": "run",
            "members": 2,
            "truth_sha256": None,
            "initial_sha256": None,
            "weight": weight,
            "ranks": [[1.0, 0.5, 0.5]] * count,
        }
    )
    values = np.array(crps) * weight
    return typed(frame.assign(**dict.fromkeys((*STATISTICS, *BASELINE), values)))


def test_roots_are_taken_of_the_mean_of_all() -> None:
    scores = finished_scores(rows([1.0, 7.0])).iloc[0]
    assert scores["count"] == 2
    assert scores["crps"] == 4
    assert scores["rmse"] == 2  # the root of the mean of 1 and 7
    assert scores["spread_skill"] == 1
    assert scores["crpss"] == 0


def test_groups_weigh_by_area_and_combine_in_any_order() -> None:
    parts = pd.concat([rows([1.0], weight=1), rows([5.0], weight=3)], ignore_index=True)
    forward = finished_scores(parts)
    backward = finished_scores(parts.iloc[::-1])
    assert forward["crps"].item() == 4
    pd.testing.assert_frame_equal(forward, backward)


def test_skill_compares_the_same_forecasts() -> None:
    table = rows([1.0, 9.0])
    table.loc[table["crps"] == 18, list(BASELINE)] = np.nan
    assert finished_scores(table)["crpss"].item() == 0  # the 9 has no partner and does not count


def test_a_negative_mean_has_no_root() -> None:
    table = rows([1.0])
    table["mean_squared"] = -1.0
    assert np.isnan(finished_scores(table)["rmse"].item())


def test_the_long_table_has_one_number_a_row() -> None:
    table = long_table(finished_scores(rows([1.0])))
    assert sorted(table["metric"]) == sorted(METRICS)
    assert {"variable", "region", "lead_hours", "count", "value"} <= set(table.columns)


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(InputError, match="season"):
        finished_scores(rows([1.0]), by=["season"])


def test_ranks_of_different_ensembles_do_not_mix() -> None:
    table = rows([1.0, 1.0])
    np.testing.assert_allclose(rank_histogram(table), [1.5, 0.75, 0.75])
    table.loc[0, "members"] = 3
    with pytest.raises(InputError, match="do not add up"):
        rank_histogram(table)


def test_a_day_of_worse_scores_is_a_drift_and_one_bad_forecast_is_not() -> None:
    usual = list(np.random.default_rng(0).normal(10, 0.5, 120))
    assert drifts(rows(usual)) == []
    assert drifts(rows([*usual, 10.0, 10.1, 30.0, 9.9])) == []
    found = drifts(rows([*usual, 14.0, 14.1, 13.9, 14.2]))
    assert [(each.variable, each.level_hpa, each.lead_hours) for each in found] == [
        ("geopotential", 500, 24)
    ]
    assert "standard deviations above" in str(found[0])


def test_drift_is_silent_without_a_week_behind_it_and_for_better_scores() -> None:
    assert drifts(rows([1.0] * 10 + [9.0] * 4)) == []
    usual = list(np.random.default_rng(0).normal(10, 0.5, 120))
    assert drifts(rows([*usual, 2.0, 2.0, 2.0, 2.0])) == []
    assert drifts(rows([*usual, 14.0, 14.1, 13.9, 14.2], lead_hours=30)) == []  # not watched


def test_regions_are_those_boxes() -> None:
    weights = dict(zip((each.name for each in REGIONS), region_weights(), strict=True))
    assert weights["global"].sum() == pytest.approx(121 * 240)
    europe = weights["europe"].reshape(121, 240) > 0
    rows_, columns = np.flatnonzero(europe.any(1)), np.flatnonzero(europe.any(0))
    assert LATITUDE[rows_[[0, -1]]].tolist() == [36.0, 75.0]
    assert europe[:, 0].any()
    assert len(columns) == 37  # 12 W to 42 E in steps of 1.5
    tropics = weights["tropics"].reshape(121, 240)[:, 0]
    inside = abs(LATITUDE) <= 20
    np.testing.assert_allclose(tropics[inside], area_weights(LATITUDE)[inside])
    assert (tropics[~inside] == 0).all()
    with pytest.raises(InputError, match="choose from global"):
        region("atlantis")
