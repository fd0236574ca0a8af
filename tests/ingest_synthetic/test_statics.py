"""The made-up planet and the statistics of its air."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.harmonics import SphereGrid
from ingest.synthetic.statics import norm_statistics, planet
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights


def test_planet_looks_like_one(model_atmosphere: Atmosphere):
    ground = model_atmosphere.planet
    land = ground.land_sea_mask
    assert land.min() >= 0
    assert land.max() <= 1
    fraction = np.average(land.mean(axis=1), weights=area_weights(LATITUDE))
    assert 0.22 < fraction < 0.4
    assert land[0].min() > 0.9  # ice sheet at the south pole
    assert land[-1].max() < 0.1  # sea at the north pole
    height = ground.geopotential_at_surface / 9.80665
    assert 3000 < height.max() < 7000
    assert np.abs(height[land < 1e-3]).max() < 10


def test_soil_types_are_classes_on_land(model_atmosphere: Atmosphere):
    ground = model_atmosphere.planet
    assert set(np.unique(ground.soil_type)) <= set(range(7))
    assert (ground.soil_type[ground.land_sea_mask < 0.4] == 0).all()
    assert (ground.soil_type[ground.land_sea_mask > 0.6] > 0).all()


def test_planet_is_the_same_on_every_grid():
    fine = planet(SphereGrid(LATITUDE[::10], 0.75 * np.arange(480), 170), 7)
    coarse = planet(SphereGrid(LATITUDE[::10], LONGITUDE, 170), 7)
    np.testing.assert_allclose(fine.land_sea_mask[:, ::2], coarse.land_sea_mask, atol=1e-3)
    assert not np.array_equal(
        coarse.land_sea_mask, planet(SphereGrid(LATITUDE[::10], LONGITUDE, 170), 8).land_sea_mask
    )


def test_statistics_are_mean_and_deviation():
    rng = np.random.default_rng(0)
    samples = [rng.normal(5, 2, (3, 8, 9)).astype(np.float32) for _ in range(4)]
    mean, deviation = norm_statistics(iter(samples))
    joined = np.array(samples, np.float64)
    np.testing.assert_allclose(mean, joined.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(deviation, joined.std((0, 2, 3)), rtol=1e-6)


def test_statistics_of_the_year_scale_every_channel(year: np.ndarray):
    mean, deviation = norm_statistics(year)
    assert mean.shape == deviation.shape == (82,)
    assert (deviation > 0).all()
    scaled = (year[2] - mean[:, None, None]) / deviation[:, None, None]
    assert np.abs(scaled.mean(axis=(1, 2))).max() < 1
    assert 0.5 < scaled.std() < 1.5


def test_statistics_need_samples():
    with pytest.raises(InputError, match="no samples"):
        norm_statistics([])
