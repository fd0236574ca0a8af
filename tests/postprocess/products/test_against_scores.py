"""Our statistics against the package `scores`, by way of the scores that they decide."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import xarray as xr
from scores.continuous import mean_error, mse, quantile_score
from scores.probability import brier_score_for_ensemble
from scores.processing import binary_discretise

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights
from postprocess.products.climatology import QUANTILES, Climate, anomaly_correlation
from postprocess.products.exceedance import ExceedanceProbabilities
from postprocess.products.reduction import MemberReduction
from postprocess.products.requests import Event

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
LIMITS = (278.15, 283.15)


@pytest.fixture(scope="module")
def members() -> xr.DataArray:
    rng = np.random.default_rng(4)
    values = (280 + 6 * rng.standard_normal((24, 121, 240))).astype(np.float32)
    return xr.DataArray(values, dims=("number", "latitude", "longitude"))


@pytest.fixture(scope="module")
def statistics(members) -> xr.DataArray:
    found = np.empty((4 + len(LEVELS), 121, 240), np.float32)
    MemberReduction(24, LEVELS)([members.values], None, found)
    return xr.DataArray(found, dims=("statistic", "latitude", "longitude"))


def test_mean_and_deviation(members, statistics):
    exact = members.astype(np.float64)
    nothing = xr.zeros_like(exact)
    mean = mean_error(exact, nothing, reduce_dims=["number"])
    np.testing.assert_allclose(statistics[0], mean, rtol=2e-7)
    spread = mse(exact, mean.broadcast_like(exact), reduce_dims=["number"]) * 24 / 23
    np.testing.assert_allclose(statistics[1], np.sqrt(spread), rtol=1e-6)


def test_quantiles_have_the_least_quantile_score(members, statistics):
    """The quantile of a sample is where its mean quantile score is lowest; for 24 members our
    interpolated ones lie between two members, one of which has the lowest score of all."""
    for index, level in enumerate(LEVELS):
        ours = statistics[4 + index].astype(np.float64)
        own = quantile_score(ours.broadcast_like(members), members, level, reduce_dims=["number"])
        ordered = np.sort(members.values, axis=0).astype(np.float64)
        least = min(
            float(quantile_score(members.copy(data=np.broadcast_to(row, members.shape)), members,
                                 level).mean()) for row in ordered)  # fmt: skip
        assert float(own.mean()) == pytest.approx(least, rel=0.02)
        shifted = quantile_score((ours + 1).broadcast_like(members), members, level)
        assert float(own.mean()) < float(shifted.mean())


def test_probabilities_of_events(members):
    fields = members.values[:, np.newaxis]
    lead = np.timedelta64(0, "ns")
    step = ForecastStep(
        np.datetime64("2026-01-01", "ns"), 0, lead, tuple(range(24)), ("2m_temperature",), fields
    )
    product = ExceedanceProbabilities([Event("2m_temperature", "above", LIMITS, "K")])
    product.update(step)
    ours = product.result()["2m_temperature_above_probability"].isel(lead_time=0, drop=True)
    limits = [float(np.float32(limit)) for limit in LIMITS]
    shares = binary_discretise(members, limits, operator.gt).mean("number")
    np.testing.assert_allclose(
        ours.transpose("2m_temperature_above_threshold", "latitude", "longitude"),
        shares.transpose("threshold", "latitude", "longitude"),
        rtol=1e-6,
    )
    # The Brier score of a forecast of something that did not happen is its probability squared.
    brier = brier_score_for_ensemble(
        members, xr.zeros_like(members[0]), "number", limits, preserve_dims="all",
        fair_correction=False, event_threshold_operator=operator.gt,
    )  # fmt: skip
    np.testing.assert_allclose(
        ours**2, brier.transpose("threshold", "latitude", "longitude"), rtol=1e-6, atol=1e-12
    )


def test_anomaly_correlation(members):
    climate = Climate(np.full((121, 240), 279.0), np.zeros((QUANTILES.size, 121, 240)))
    forecast, truth = (members[index].values.astype(np.float64) for index in (0, 1))
    truth = 0.5 * truth + 0.5 * forecast
    weights = xr.DataArray(
        np.broadcast_to(area_weights(LATITUDE)[:, None], (LATITUDE.size, LONGITUDE.size)),
        dims=("latitude", "longitude"),
    )

    def centred(field: np.ndarray) -> xr.DataArray:
        apart = xr.DataArray(field - climate.mean, dims=("latitude", "longitude"))
        return apart - mean_error(apart, xr.zeros_like(apart), weights=weights)

    a, b = centred(forecast), centred(truth)
    nothing = xr.zeros_like(a)
    aa, bb, ab = (mse(*pair, weights=weights) for pair in ((a, nothing), (b, nothing), (a, b)))
    expected = (aa + bb - ab) / (2 * np.sqrt(aa * bb))
    found = anomaly_correlation(forecast, truth, climate)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
