"""Sorting networks by the zero-one principle, statistics against numpy for any ensemble size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from postprocess.products.reduction import MemberReduction, selection_network

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def run(network, values: np.ndarray) -> np.ndarray:
    """The network on axis 0, with the results that it says nobody reads spoilt."""
    rows = list(values)
    for low, high, keep_low, keep_high in network:
        a, b = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])
        rows[low] = a if keep_low else np.full_like(a, 99)
        rows[high] = b if keep_high else np.full_like(b, -99)
    return np.stack(rows)


@pytest.mark.parametrize("count", range(1, 13))
def test_every_sequence_of_zeros_and_ones_is_sorted(count):
    # A network that sorts these sorts everything (Knuth 5.3.4, theorem Z).
    cases = np.array(list(itertools.product((0, 1), repeat=count))).T
    whole = selection_network(count, frozenset(range(count)))
    np.testing.assert_array_equal(run(whole, cases), np.sort(cases, axis=0))
    for rank in range(count):
        one = selection_network(count, frozenset({rank}))
        np.testing.assert_array_equal(run(one, cases)[rank], np.sort(cases, axis=0)[rank])


def test_unwanted_ranks_cost_nothing():
    halves = [sum(low + high for *_, low, high in selection_network(24, frozenset(ranks)))
              for ranks in (range(24), (0, 23))]  # fmt: skip
    assert halves[0] == 2 * 127  # Batcher's network for 24
    assert halves[1] < 90


@pytest.mark.parametrize("members", [2, 3, 7, 24, 50])
@pytest.mark.parametrize("offset", [0.0, 300.0, 500_000.0])
def test_statistics_equal_numpy(members, offset):
    rng = np.random.default_rng(members)
    plane = (offset + 3 * rng.standard_normal((members, 121, 240))).astype(np.float32)
    out = np.empty((9, 121, 240), np.float32)
    MemberReduction(members, QUANTILES)([plane], None, out)
    exact = plane.astype(np.float64)
    # The distance of two float32 numbers here; sums of members around 0 carry their own rounding.
    step = np.spacing(np.float32(offset + 10))
    np.testing.assert_allclose(out[0], exact.mean(0), rtol=0, atol=2 * step)
    np.testing.assert_allclose(out[1], exact.std(0, ddof=1), rtol=1e-6)
    np.testing.assert_array_equal(out[2], exact.min(0))
    np.testing.assert_array_equal(out[3], exact.max(0))
    np.testing.assert_allclose(
        out[4:], np.quantile(exact, QUANTILES, axis=0), rtol=0, atol=2 * step
    )


def test_identical_members_have_no_deviation():
    plane = np.repeat(np.full((1, 121, 240), 287.65, np.float32), 24, axis=0)
    out = np.empty((9, 121, 240), np.float32)
    MemberReduction(24, QUANTILES)([plane], None, out)
    np.testing.assert_array_equal(out[[0, 2, 3, 4, 8]], np.float32(287.65))
    assert not out[1].any()
