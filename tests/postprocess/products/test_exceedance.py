"""Probabilities of events against counting, at instants and in windows."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from postprocess.products.exceedance import ExceedanceProbabilities
from postprocess.products.requests import Event

CHANNELS = ("2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind")
INIT = np.datetime64("2026-01-01T00", "ns")
EVENTS = (
    Event("2m_temperature", "below", (0.0,), "degC"),
    Event("10m_wind_speed", "above", (10.0, 20.0), "m s-1"),
)


def step(lead: int, fields: np.ndarray, numbers=None) -> ForecastStep:
    numbers = tuple(range(len(fields))) if numbers is None else numbers
    hours = np.timedelta64(lead, "h").astype("timedelta64[ns]")
    return ForecastStep(INIT, lead // 6, hours, numbers, CHANNELS, fields)


@pytest.fixture(scope="module")
def leads() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (6, 3, 121, 240)
    scale = np.array([10.0, 12.0, 12.0]).reshape(1, 3, 1, 1)
    offset = np.array([273.15, 0, 0]).reshape(1, 3, 1, 1)
    return {
        lead: (rng.standard_normal(shape) * scale + offset).astype(np.float32)
        for lead in range(0, 55, 6)
    }


@pytest.fixture(scope="module")
def result(leads):
    product = ExceedanceProbabilities(EVENTS)
    for lead, fields in leads.items():
        product.update(step(lead, fields))
    return product.result()


def test_instants_are_shares_of_members(leads, result):
    cold = np.stack([(fields[:, 0] < np.float32(273.15)).mean(0) for fields in leads.values()])
    found = result["2m_temperature_below_probability"].sel(
        {"2m_temperature_below_threshold": 273.15}
    )
    np.testing.assert_allclose(found, cold, rtol=1e-6)
    windy = np.stack([(np.hypot(f[:, 1], f[:, 2]) > 20).mean(0) for f in leads.values()])
    found = result["10m_wind_speed_above_probability"].sel({"10m_wind_speed_above_threshold": 20})
    np.testing.assert_allclose(found, windy, rtol=1e-6)


def test_windows_count_a_member_once(leads, result):
    speeds = {lead: np.hypot(f[:, 1], f[:, 2]) > 20 for lead, f in leads.items()}
    assert result.window.values.tolist() == [24, 48]
    for end in (24, 48):
        held = np.any([speeds[lead] for lead in range(end - 18, end + 1, 6)], axis=0)
        found = result["10m_wind_speed_above_probability_in_window"].sel(
            {"10m_wind_speed_above_threshold": 20, "window": end}
        )
        np.testing.assert_allclose(found, held.mean(0), rtol=1e-6)


def test_thresholds_carry_units_and_comparison(result):
    threshold = result["2m_temperature_below_threshold"]
    assert threshold.attrs == {"standard_name": "air_temperature", "units": "K"}
    assert threshold.values.tolist() == [273.15]
    assert result["2m_temperature_below_probability"].attrs["comparison"] == "<"
    assert result["2m_temperature_below_probability"].attrs["units"] == "1"


def test_windows_are_of_the_members_that_stay(leads):
    product = ExceedanceProbabilities(EVENTS)
    for lead in range(0, 25, 6):
        stay = slice(0, 6) if lead < 12 else slice(0, 4)
        numbers = tuple(range(6))[stay]
        product.update(step(lead, leads[lead][stay], numbers))
    found = product.result()
    assert found.number_of_members.values.tolist() == [6, 6, 4, 4, 4]
    shares = found["10m_wind_speed_above_probability_in_window"].values * 4
    np.testing.assert_allclose(shares, np.round(shares), atol=1e-6)


def test_windows_are_named_by_the_lead_that_closes_them(leads):
    product = ExceedanceProbabilities(EVENTS, window_hours=12)
    for lead in (0, 12, 24):
        product.update(step(lead, leads[lead]))
    window = product.result().window
    assert window.values.tolist() == [12, 24]
    assert window.attrs["window_hours"] == 12


@pytest.mark.parametrize(
    ("window_hours", "given"),
    [(9, (0, 6)), (9, (6,)), (12, (0, 24)), (24, (0, 48)), (24, (0, 12, 18, 30))],
)
def test_a_window_that_no_lead_closes_is_refused(leads, window_hours, given):
    product = ExceedanceProbabilities(EVENTS, window_hours)
    *before, last = given
    for lead in before:
        product.update(step(lead, leads[lead]))
    with pytest.raises(InputError, match=r"products.window_hours: windows of"):
        product.update(step(last, leads[last]))


def test_a_forecast_without_a_whole_window_has_none(leads):
    product = ExceedanceProbabilities(EVENTS)
    product.update(step(0, leads[0]))
    product.update(step(6, leads[6]))
    assert product.result().sizes["window"] == 0


def test_bad_input_is_named(leads):
    with pytest.raises(InputError, match="thresholds in 'm s-1' for a quantity in 'K'"):
        Event("2m_temperature", "above", (30.0,), "m s-1")
    absent = ExceedanceProbabilities(
        [Event("wind_speed", "above", (20.0,), "m s-1", level_hpa=850)]
    )
    with pytest.raises(StoreError, match="no wind_speed at 850 hPa"):
        absent.update(step(0, leads[0]))
    with pytest.raises(InputError, match="all thresholds of a quantity and side in one"):
        ExceedanceProbabilities([EVENTS[0], EVENTS[0]])
    with pytest.raises(StoreError, match="no step"):
        ExceedanceProbabilities().result()
