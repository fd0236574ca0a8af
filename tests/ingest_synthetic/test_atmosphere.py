"""The made-up atmosphere: reproducible, plausible, balanced, alive."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.synthetic.atmosphere import Atmosphere, native_latitude, native_longitude
from ingest.synthetic.constants import GAS_CONSTANT, LEVEL_S, VIRTUAL, saturation_humidity
from ingest.synthetic.harmonics import GaussGrid
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import EARTH_RADIUS_M, LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNEL_NAMES, CHANNELS, LEVELS

TIME = np.datetime64("2026-11-23T06", "ns")
MIDDLE = (np.abs(LATITUDE) > 30) & (np.abs(LATITUDE) < 70)


def pick(fields: np.ndarray, name: str) -> np.ndarray:
    return fields[CHANNEL_NAMES.index(name)].astype(np.float64)


def upper(fields: np.ndarray) -> np.ndarray:
    """(z, q, t, u, v, w) x level x latitude x longitude."""
    return fields[4:].reshape(6, len(LEVELS), *fields.shape[1:]).astype(np.float64)


def weighted_correlation(a: np.ndarray, b: np.ndarray) -> float:
    weight = np.broadcast_to(np.cos(np.radians(LATITUDE))[:, None], a.shape).ravel()
    covariance = np.cov(a.ravel(), b.ravel(), aweights=weight)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def test_is_a_function_of_time_and_seed(model_fields: np.ndarray):
    assert model_fields.shape == (82, 121, 240)
    assert model_fields.dtype == np.float32
    np.testing.assert_array_equal(Atmosphere.model(3).fields(TIME), model_fields)
    other = Atmosphere.model(4).fields(TIME)
    assert (
        np.abs(pick(other, "geopotential_500") - pick(model_fields, "geopotential_500")).max() > 500
    )


def test_is_the_same_on_every_grid(model_fields: np.ndarray):
    rows = slice(10, 120, 20)
    finer = Atmosphere(LATITUDE[rows], 180.0 + 0.75 * np.arange(480), seed=3).fields(TIME)
    same = np.roll(finer[:, :, ::2], 120, axis=-1)
    spread = model_fields.std(axis=(1, 2))[:, None, None]
    difference = np.abs(same - model_fields[:, rows]) / spread
    # The coarse grid cannot hold the wavenumbers 121..170 of the finer one.
    assert np.median(difference) < 0.02
    assert difference.max() < 1.0


def test_stays_within_the_contract_all_year(year: np.ndarray):
    assert np.isfinite(year).all()
    for number, channel in enumerate(CHANNELS):
        field = year[:, number]
        assert channel.minimum <= field.min(), channel.name
        assert field.max() <= channel.maximum, channel.name
        assert field.std(axis=(1, 2)).min() > 0
    assert upper(year[0])[1].min() > 0


def test_never_much_more_than_saturated(model_fields: np.ndarray):
    _, q, t, *_ = upper(model_fields)
    relative = q / saturation_humidity(t, np.array(LEVELS, float)[:, None, None])
    assert relative[LEVELS.index(300) :].max() < 1.1
    assert 0.3 < relative[LEVELS.index(700)].mean() < 0.7


def test_thickness_is_hydrostatic(model_fields: np.ndarray):
    z, q, t, *_ = upper(model_fields)
    virtual = t * (1 + VIRTUAL * q)
    for lower in range(LEVELS.index(200), len(LEVELS) - 1):
        mean = 0.5 * (virtual[lower] + virtual[lower + 1])
        depth = LEVEL_S[lower] - LEVEL_S[lower + 1]
        implied = (z[lower] - z[lower + 1]) / (GAS_CONSTANT * depth)
        assert np.abs(implied - mean).max() < 2.5, LEVELS[lower]
        assert np.sqrt(np.mean((implied - mean) ** 2)) < 0.8, LEVELS[lower]  # the trapezoidal rule


def test_hydrostatic_check_would_notice_half_a_layer(model_fields: np.ndarray):
    z, _, t, *_ = upper(model_fields)
    at = LEVELS.index(500)
    implied = (z[at] - z[at + 1]) / (GAS_CONSTANT * (LEVEL_S[at] - LEVEL_S[at + 1]))
    assert np.abs(implied - t[at - 2]).mean() > 5


@pytest.mark.parametrize("level", [250, 500, 850])
def test_wind_is_in_balance(model_fields: np.ndarray, level: int):
    z = pick(model_fields, f"geopotential_{level}")
    u = pick(model_fields, f"u_component_of_wind_{level}")
    v = pick(model_fields, f"v_component_of_wind_{level}")
    step, phi = np.radians(1.5), np.radians(LATITUDE[MIDDLE])[:, None]
    distance = 1.4584e-4 * np.sin(phi) * EARTH_RADIUS_M  # times the Coriolis parameter
    geostrophic_u = -np.gradient(z, step, axis=0)[MIDDLE] / distance
    across = (np.roll(z, -1, 1) - np.roll(z, 1, 1))[MIDDLE]
    geostrophic_v = across / (2 * step * np.cos(phi)) / distance
    assert np.corrcoef(u[MIDDLE].ravel(), geostrophic_u.ravel())[0, 1] > 0.93
    assert np.corrcoef(v[MIDDLE].ravel(), geostrophic_v.ravel())[0, 1] > 0.93
    assert 0.8 < np.polyfit(geostrophic_u.ravel(), u[MIDDLE].ravel(), 1)[0] < 1.2


def test_jets_blow_where_jets_blow(model_fields: np.ndarray):
    u, t = (pick(model_fields, f"{name}_200") for name in ("u_component_of_wind", "temperature"))
    zonal = u.mean(axis=1)
    for hemisphere in (-1, 1):
        rows = np.flatnonzero(np.sign(LATITUDE) == hemisphere)
        core = LATITUDE[rows[zonal[rows].argmax()]]
        assert 25 < abs(core) < 55
        assert 20 < zonal[rows].max() < 55
    assert np.abs(zonal[np.abs(LATITUDE) < 5]).max() < 20
    trades = pick(model_fields, "10m_u_component_of_wind").mean(axis=1)
    assert trades[np.abs(np.abs(LATITUDE) - 15) < 6].mean() < -2
    assert trades[np.abs(np.abs(LATITUDE) - 50) < 6].mean() > 2
    tropopause = pick(model_fields, "temperature_100").mean(axis=1)
    assert tropopause[60] < tropopause[[15, 105]].min() - 5
    assert t.mean() < 230


def test_omega_agrees_with_the_divergence(model_fields: np.ndarray):
    """Omega at 500 hPa from the divergence below the top by the trapezoidal rule."""
    *_, u, v, w = upper(model_fields)
    cosine = np.maximum(np.cos(np.radians(LATITUDE)), 1e-3)[:, None]
    step = np.radians(1.5)
    divergence = (
        (np.roll(u, -1, 2) - np.roll(u, 1, 2)) / (2 * step) + np.gradient(v * cosine, step, axis=1)
    ) / (EARTH_RADIUS_M * cosine)
    at = LEVELS.index(500)
    pressure = 100.0 * np.array(LEVELS[: at + 1], float)
    below = -np.trapezoid(divergence[: at + 1], pressure, axis=0) - divergence[0] * pressure[0]
    inner = np.abs(LATITUDE) < 75
    correlation = np.corrcoef(below[inner].ravel(), w[at][inner].ravel())[0, 1]
    assert correlation > 0.7
    reversed_sign = np.corrcoef(below[inner].ravel(), -w[at][inner].ravel())[0, 1]
    assert reversed_sign < -0.7
    assert np.abs(w[0]).mean() < 0.1 * np.abs(w[at]).mean()


def test_six_hours_change_things_as_they_should(history: np.ndarray):
    before, after = history[-2:]
    for name, least, most in (
        ("mean_sea_level_pressure", 80, 400),
        ("geopotential_500", 100, 450),
        ("temperature_850", 0.6, 3),
        ("2m_temperature", 0.8, 5),
        ("u_component_of_wind_250", 2, 9),
        ("specific_humidity_700", 2e-4, 1.6e-3),
        ("vertical_velocity_500", 0.05, 0.4),
    ):
        change = np.sqrt(np.mean((pick(after, name) - pick(before, name)) ** 2))
        assert least < change < most, (name, change)


def test_four_analyses_in_a_row_move_alike(history: np.ndarray):
    """No step of a history stands out: rms changes of neighbours agree within a factor."""
    changes = np.sqrt(np.mean(np.diff(history, axis=0) ** 2, axis=(2, 3), dtype=np.float64))
    assert (changes.max(axis=0) / changes.min(axis=0)).max() < 2.5
    spread = np.std(history[-1], axis=(1, 2), dtype=np.float64)
    assert (changes / spread).max() < 1.6


def test_waves_travel_eastward(history: np.ndarray):
    row = np.argmin(np.abs(LATITUDE - 48))
    series = [pick(state, "geopotential_500")[row] for state in history]
    waves = np.fft.rfft(np.array(series), axis=1)[:, 5:11]
    turning = np.angle(waves[1:] / waves[:-1])
    assert np.average(turning, weights=np.abs(waves[1:])) < -0.1


def test_energy_spectrum_falls_like_minus_three(model_fields: np.ndarray):
    """Zonal kinetic energy at 300 hPa along the parallels between 35 and 55 degrees."""
    rows = (np.abs(LATITUDE) > 35) & (np.abs(LATITUDE) < 55)
    power = sum(
        np.mean(np.abs(np.fft.rfft(pick(model_fields, f"{c}_component_of_wind_300")[rows])) ** 2, 0)
        for c in ("u", "v")
    )
    m = np.arange(12, 70)
    slope = np.polyfit(np.log(m), np.log(power[12:70]), 1)[0]
    assert -4.0 < slope < -2.3


def test_land_is_warm_by_day_and_cold_by_night(model_atmosphere: Atmosphere, history: np.ndarray):
    land = model_atmosphere.planet.land_sea_mask
    row = np.argmin(np.abs(LATITUDE - 20))
    by_hour = np.array([pick(state, "2m_temperature")[row] for state in history])
    span = np.ptp(by_hour, axis=0)
    assert span[land[row] > 0.9].mean() > 5
    assert span[land[row] < 0.1].mean() < 3
    sahara = np.argmin(np.abs(LONGITUDE - 15))
    warmest = (12 + 6 * by_hour[:, sahara].argmax()) % 24
    assert warmest in (12, 18)


@pytest.mark.parametrize(("month", "sign"), [("2026-07", 1), ("2026-01", -1)])
def test_continents_follow_the_sun(model_atmosphere: Atmosphere, month: str, sign: int):
    fields = model_atmosphere.fields(np.datetime64(f"{month}-15T00", "ns"))
    land = model_atmosphere.planet.land_sea_mask[88:101]
    surface = model_atmosphere.planet.geopotential_at_surface[88:101]
    air = pick(fields, "temperature_925")[88:101]
    low = surface < 3000
    contrast = air[(land > 0.9) & low].mean() - air[(land < 0.1) & low].mean()
    assert contrast * sign > 0.5


def test_mountains_cool_the_air_above_them(model_atmosphere: Atmosphere, model_fields: np.ndarray):
    height = model_atmosphere.planet.geopotential_at_surface / 9.80665
    cooling = pick(model_fields, "temperature_1000") - pick(model_fields, "2m_temperature")
    assert weighted_correlation(cooling, height) > 0.6
    rolled = np.roll(height, 120, axis=1)
    assert weighted_correlation(cooling, rolled) < 0.5


def test_pressure_fits_the_lowest_geopotential(model_fields: np.ndarray):
    height = pick(model_fields, "geopotential_1000")
    pressure = pick(model_fields, "mean_sea_level_pressure")
    implied = 1e5 * np.exp(height / (GAS_CONSTANT * 288.0))
    assert np.abs(implied - pressure).max() < 800


def test_native_grid_is_the_one_of_the_files():
    latitude, longitude = native_latitude(), native_longitude()
    assert (latitude[0], latitude[-1], latitude.size) == (90.0, -90.0, 721)
    assert (longitude[0], longitude[-1] % 360, longitude.size) == (180.0, 179.75, 1440)


def test_longitudes_must_close_the_circle():
    with pytest.raises(InputError):
        Atmosphere(LATITUDE, LONGITUDE[:120])


def test_projection_keeps_the_continents_in_place():
    gauss = GaussGrid(20)
    bump = np.exp(-(((gauss.latitude[:, None] - 40) / 20) ** 2)) * np.ones(gauss.longitude.size)
    assert abs(gauss.project(bump)[0, 1]) > 0.01
