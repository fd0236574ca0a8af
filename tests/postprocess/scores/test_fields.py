"""Scores at a point against hand-worked values, brute force and an outside authority."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.errors import InputError
from postprocess.scores.fields import STATISTICS, baseline_scores, ensemble_scores, ranks


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_two_members_around_the_truth_by_hand() -> None:
    found = ensemble_scores(column(0, 2), np.array([1.0]))
    worked = {"crps": 0, "mean_squared": -1, "mean_absolute": 0, "mean_error": 0,
              "member_squared": 1, "variance": 2}  # fmt: skip
    assert {name: found[name].item() for name in STATISTICS} == worked


def test_three_members_beside_the_truth_by_hand() -> None:
    found = ensemble_scores(column(1, 5, 3), np.array([0.0]))
    assert found["crps"].item() == pytest.approx(3 - (2 + 4 + 2) / 6)
    assert found["mean_squared"].item() == pytest.approx(9 - 4 / 3)
    assert found["mean_error"].item() == 3
    assert found["variance"].item() == 4


@pytest.mark.parametrize("count", [2, 3, 24])
def test_the_fair_crps_is_that_of_scores_and_of_brute_force(count: int) -> None:
    from scores.probability import crps_for_ensemble

    generator = np.random.default_rng(count)
    members = generator.normal(280, 8, (count, 60)).astype(np.float32)
    truth = generator.normal(280, 8, 60).astype(np.float32)
    members[1, :20] = members[0, :20]  # equal members
    found = ensemble_scores(members, truth)["crps"]
    exact = members.astype(np.float64)
    pairs = np.abs(exact[:, None] - exact[None]).sum((0, 1)) / (2 * count * (count - 1))
    np.testing.assert_allclose(found, np.abs(exact - truth).mean(0) - pairs, rtol=0, atol=1e-11)
    authority = crps_for_ensemble(
        xr.DataArray(exact, dims=("number", "point")),
        xr.DataArray(truth.astype(np.float64), dims="point"),
        ensemble_member_dim="number",
        method="fair",
        preserve_dims="all",
    )
    np.testing.assert_allclose(found, authority.values, rtol=0, atol=1e-11)


def test_scores_do_not_depend_on_how_many_members_a_fair_ensemble_has() -> None:
    generator = np.random.default_rng(7)
    truth = generator.normal(size=200_000)
    few, many = (ensemble_scores(generator.normal(size=(count, truth.size)), truth)
                 for count in (3, 12))  # fmt: skip
    assert few["crps"].mean() == pytest.approx(1 / np.sqrt(np.pi), abs=5e-3)
    assert many["crps"].mean() == pytest.approx(1 / np.sqrt(np.pi), abs=5e-3)
    assert few["mean_squared"].mean() == pytest.approx(1, abs=2e-2)
    assert many["mean_squared"].mean() == pytest.approx(many["variance"].mean(), rel=2e-2)


def test_ranks_of_a_reliable_ensemble_are_flat_and_ties_are_shared() -> None:
    generator = np.random.default_rng(3)
    found = ranks(generator.normal(size=(4, 100_000)), generator.normal(size=100_000), seed=0)
    np.testing.assert_allclose(np.bincount(found, minlength=5) / 20_000, 1, atol=0.03)
    tied = ranks(np.zeros((4, 100_000)), np.zeros(100_000), seed=0)
    np.testing.assert_allclose(np.bincount(tied, minlength=5) / 20_000, 1, atol=0.03)
    assert np.array_equal(tied, ranks(np.zeros((4, 100_000)), np.zeros(100_000), seed=0))


def test_the_rank_counts_the_members_below() -> None:
    assert ranks(column(1, 2, 3), np.array([2.5]), seed=0).item() == 2
    assert ranks(column(1, 2, 3), np.array([0.0]), seed=0).item() == 0


def test_persistence_is_the_error_of_the_first_field() -> None:
    found = baseline_scores(np.array([3.0, 0.0]), np.array([1.0, 1.0]))
    assert found["persistence_squared"].tolist() == [4, 1]
    assert found["persistence_absolute"].tolist() == [2, 1]


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(InputError, match="1 member"):
        ensemble_scores(column(1), np.array([1.0]))
