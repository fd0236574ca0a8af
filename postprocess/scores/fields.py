"""Scores of an ensemble at every grid point, in forms whose area means can be averaged on.

Formulas as WeatherBench-X uses them (`metrics/probabilistic.py`): the fair CRPS of Ferro (2014)
and the squared error of the ensemble mean less the part that comes from having few members.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError

STATISTICS = ("crps", "mean_squared", "mean_absolute", "mean_error", "member_squared", "variance")
"""Of the members against the truth; `mean_...` are those of the ensemble mean."""

BASELINE = ("persistence_squared", "persistence_absolute")
"""Of the analysis at the initial time, taken as a forecast."""


def ensemble_scores(
    members: NDArray[np.floating], truth: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """STATISTICS of `members` (number, point) against `truth` (point,), each (point,).

    `crps` is fair: mean |x - y| - sum over pairs |x - x'| / (M (M - 1)), pairs counted once.
    `mean_squared` is unbiased: (mean - y)^2 - variance / M, so it can be negative at a point.
    InputError for fewer than two members.
    """
    count = members.shape[0]
    if count < 2:
        raise InputError(
            f"{count} member cannot be scored as an ensemble", remedy="give two or more"
        )
    ordered = np.sort(members.astype(np.float64), axis=0)
    target = truth.astype(np.float64)
    mean = ordered.mean(0)
    variance = ordered.var(0, ddof=1)
    error = mean - target
    departure = ordered - target
    return {
        "crps": np.abs(departure).mean(0) - _mean_pair_distance(ordered) / 2,
        "mean_squared": error**2 - variance / count,
        "mean_absolute": np.abs(error),
        "mean_error": error,
        "member_squared": (departure**2).mean(0),
        "variance": variance,
    }


def _mean_pair_distance(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean |x - x'| over pairs of different members; the i-th smallest counts 2 i - M + 1 times."""
    count = ordered.shape[0]
    factors = 2.0 * np.arange(count) - count + 1
    return np.tensordot(factors, ordered, axes=1) * 2 / (count * (count - 1))


def ranks(
    members: NDArray[np.floating], truth: NDArray[np.floating], seed: int
) -> NDArray[np.int64]:
    """Rank 0..M of the truth among the members, (point,); ties are drawn by `seed`."""
    below = (members < truth).sum(0)
    equal = (members == truth).sum(0)
    return below + np.random.default_rng(seed).integers(0, equal + 1)


def baseline_scores(
    initial: NDArray[np.floating], truth: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """BASELINE of the field at the initial time, each (point,)."""
    error = initial.astype(np.float64) - truth
    return {"persistence_squared": error**2, "persistence_absolute": np.abs(error)}
