"""Point series: exact on linear fields, across Greenwich and at the poles."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.points import PointSeries, bilinear
from postprocess.products.requests import Station

INIT = np.datetime64("2026-01-01T00", "ns")
CHANNELS = ("2m_temperature",)


def test_bilinear_is_exact_on_linear_fields():
    plane = (3.0 * LATITUDE[:, None] + 0.5 * LONGITUDE).astype(np.float32)
    latitudes, longitudes = np.array([10.3, -89.9, 90.0, 0.0]), np.array([33.3, 100.0, 357.2, 1.5])
    found = bilinear(plane, latitudes, longitudes)
    np.testing.assert_allclose(found, 3 * latitudes + 0.5 * longitudes, rtol=1e-5)


def test_greenwich_is_no_edge():
    plane = np.ones((121, 1)) * np.cos(np.deg2rad(LONGITUDE))
    found = bilinear(plane.astype(np.float32), np.array([5.0, 5.0]), np.array([-0.75, 359.25]))
    np.testing.assert_allclose(found, (1 + np.cos(np.deg2rad(1.5))) / 2, rtol=1e-6)


def series(fields_by_lead, **options):
    product = PointSeries([Station("a", 10.0, 20.0), Station("b", -5.2, -170.0)],
                          ["2m_temperature"], **options)  # fmt: skip
    for index, (numbers, fields) in enumerate(fields_by_lead):
        lead = np.timedelta64(6 * index, "h").astype("timedelta64[ns]")
        product.update(ForecastStep(INIT, index, lead, numbers, CHANNELS, fields))
    return product.result()


def test_members_and_quantiles():
    rng = np.random.default_rng(0)
    leads = [rng.standard_normal((5, 1, 121, 240)).astype(np.float32) + 280 for _ in range(3)]
    found = series([(tuple(range(5)), fields) for fields in leads])
    assert found["2m_temperature"].dims == ("station", "number", "lead_time")
    members = found["2m_temperature"].sel(station="b").values
    expected = np.quantile(members, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    np.testing.assert_allclose(
        found["2m_temperature_quantile"].sel(station="b"), expected, rtol=1e-6
    )
    assert found["2m_temperature"].attrs["units"] == "K"


def test_a_member_that_left_is_nan_and_not_in_the_quantiles():
    fields = np.full((3, 1, 121, 240), 280, np.float32)
    found = series([((0, 1, 2), fields), ((0, 2), fields[:2])])
    assert found.number_of_members.values.tolist() == [3, 2]
    assert np.isnan(found["2m_temperature"].sel(number=1).values[:, 1]).all()
    assert (found["2m_temperature_quantile"] == 280).all()


def test_bad_input_is_named():
    with pytest.raises(InputError, match="is no place"):
        Station("x", 95.0, 0.0)
    step = ForecastStep(
        INIT, 0, np.timedelta64(0, "ns"), (0,), CHANNELS, np.zeros((1, 1, 121, 240), np.float32)
    )
    with pytest.raises(InputError, match="no station"):
        PointSeries([])
    with pytest.raises(StoreError, match="no wind_speed_850"):
        PointSeries(quantities=["wind_speed_850"]).update(step)
