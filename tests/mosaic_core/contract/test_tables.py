"""The channel table, the grid and the variants agree with what the model was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE, area_weights
from mosaic_core.contract.variables import CHANNEL_NAMES, CHANNELS, LEVELS, VARIABLES, channel
from mosaic_core.contract.variants import variant


def test_channels_in_the_models_order() -> None:
    assert len(CHANNELS) == len(set(CHANNEL_NAMES)) == 82
    assert CHANNEL_NAMES[:5] == (
        "2m_temperature",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "mean_sea_level_pressure",
        "geopotential_50",
    )
    assert CHANNEL_NAMES[16:18] == ("geopotential_1000", "specific_humidity_50")
    assert CHANNEL_NAMES[-1] == "vertical_velocity_1000"


def test_every_range_is_an_interval_and_every_variable_has_one_per_level() -> None:
    assert all(each.minimum < each.maximum for each in CHANNELS)
    for each in VARIABLES:
        assert len(each.ranges) == (len(LEVELS) if each.on_levels else 1)


def test_ranges_tell_units_and_neighbouring_levels_apart() -> None:
    """Celsius for kelvin, geopotential height for geopotential, hPa for Pa leave the range."""
    assert channel("2m_temperature").minimum > 60
    assert channel("mean_sea_level_pressure").minimum > 1100
    for level in LEVELS[:-3]:
        entry = channel(f"geopotential_{level}")
        assert entry.maximum / 9.80665 < entry.minimum


def test_unknown_names_are_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match="unknown channel 'geopotential_501'"):
        channel("geopotential_501")
    with pytest.raises(InputError, match="unknown variant 'gfs'"):
        variant("gfs")


def test_grid_with_poles_south_to_north() -> None:
    assert LATITUDE[[0, 60, -1]].tolist() == [-90.0, 0.0, 90.0]
    assert LONGITUDE[[0, -1]].tolist() == [0.0, 358.5]
    with pytest.raises(ValueError, match="read-only"):
        LATITUDE[0] = 0.0


def test_area_weights_are_the_share_of_the_sphere() -> None:
    weights = area_weights(LATITUDE)
    exact = np.diff(np.sin(np.deg2rad(np.clip(np.arange(-90.75, 91, 1.5), -90, 90))))
    np.testing.assert_allclose(weights, exact / 2 * 121, rtol=1e-12)
    np.testing.assert_allclose(area_weights(LATITUDE[::-1]), weights[::-1], rtol=1e-12)


def test_lead_times_are_whole_steps() -> None:
    assert variant("hres").steps_for(240) == 40
    assert variant("era5").lead_time(10) == np.timedelta64(240, "h")
    with pytest.raises(InputError, match="not a whole number"):
        variant("era5").steps_for(30)
    with pytest.raises(InputError, match="not a whole number"):
        variant("hres").steps_for(0)
