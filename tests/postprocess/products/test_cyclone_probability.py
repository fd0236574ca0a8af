"""Strike and activity probabilities and plumes on tracks whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mosaic_core.contract.errors import InputError
from postprocess.products.cyclones.probability import plumes, probabilities
from postprocess.products.cyclones.sphere import distance_km
from postprocess.products.cyclones.tracks import TRACK_COLUMNS, empty_tracks

INIT = pd.Timestamp("2026-09-01T00:00")


def track(track_id, number, leads, latitudes, longitudes, category="existing") -> pd.DataFrame:
    table = pd.DataFrame({"lead_hours": leads, "latitude": latitudes, "longitude": longitudes})
    table = table.assign(
        track_id=track_id, system_id="70W", number=number, category=category, storm_id="",
        storm_name="", basin="", init_time=INIT, time=INIT, mslp_pa=99_000.0 + 100 * number,
        mslp_grid_pa=99_000.0, wind_max_ms=20.0 + number, wind_max_latitude=0.0,
        wind_max_longitude=0.0, vorticity_850=1e-4, warm_core=True, closed_contour=True,
        tracker_version="1",
    )  # fmt: skip
    return table[list(TRACK_COLUMNS)].astype(dict(TRACK_COLUMNS))


def everybody(count: int, last_lead_hours: int) -> dict[int, range]:
    """All members at every lead."""
    return {lead: range(count) for lead in range(0, last_lead_hours + 1, 6)}


def test_strike_is_within_120_km_of_the_great_circle():
    table = track("a", 0, [0, 48], [10.0, 10.0], [170.0, 176.0])
    found = probabilities(table, everybody(4, 96))
    hit = found.strike_probability.values == 0.25
    lat, lon = np.meshgrid(found.latitude, found.longitude, indexing="ij")
    along = np.linspace(0, 1, 49)
    gaps = np.min(
        [distance_km(10.0 + 0.008 * 4 * f * (1 - f), 170 + 6 * f, lat, lon) for f in along], axis=0
    )
    assert hit[gaps < 115].all()
    assert not hit[gaps > 125].any()
    assert set(np.unique(found.strike_probability)) == {0.0, 0.25}


def test_windows_hold_only_their_hours():
    table = track("a", 0, [0, 96], [10.0, 10.0], [170.0, 182.0])
    found = probabilities(table, everybody(1, 96))
    assert found.window.values.tolist() == [0, 48]
    early, late = found.strike_probability_in_window
    assert early.sel(latitude=10, longitude=172) == 1
    assert late.sel(latitude=10, longitude=172) == 0
    assert late.sel(latitude=10, longitude=181) == 1
    whole = found.strike_probability
    np.testing.assert_array_equal(np.maximum(early, late), whole)


def test_two_tracks_of_one_member_count_once():
    table = pd.concat([
        track("a", 0, [0], [10.0], [170.0]), track("b", 0, [0], [10.5], [170.0]),
        track("c", 1, [0], [10.0], [170.5]),
    ])  # fmt: skip
    found = probabilities(table, everybody(4, 24))
    assert found.strike_probability.max() == 0.5


def test_activity_above_a_wind_needs_that_wind_there_and_then():
    table = track("a", 0, [0, 48], [10.0, 10.0], [170.0, 180.0])
    table["wind_max_ms"] = [10.0, 34.0]
    found = probabilities(table, everybody(2, 96))
    assert found.wind_class.values.tolist() == [8.0, 17.0, 32.0]
    start, end = {"latitude": 10, "longitude": 170}, {"latitude": 10, "longitude": 180}
    windy = found.activity_probability_above_wind
    assert windy.sel(start).values.tolist() == [0.5, 0, 0]
    assert windy.sel(end).values.tolist() == [0.5, 0.5, 0.5]
    # 17 m s-1 is passed at hour 14, 32 m s-1 at hour 44: 300 km are 2.7 degrees.
    assert windy.sel(latitude=10, longitude=175).values.tolist() == [0.5, 0.5, 0]
    late = found.activity_probability_above_wind_in_window.sel(window=48, **end)
    assert late.values.tolist() == [0.5, 0.5, 0.5]
    np.testing.assert_array_equal(windy.sel(wind_class=8), found.activity_probability)
    assert "1.5 degrees" in windy.attrs["comment"]


def test_genesis_counts_for_activity_only():
    table = track("a", 0, [24, 30], [10.0, 10.5], [170.0, 169.0], category="genesis")
    found = probabilities(table, everybody(2, 48))
    assert found.strike_probability.max() == 0
    assert found.activity_probability.max() == 0.5
    lat, lon = np.meshgrid(found.latitude, found.longitude, indexing="ij")
    near = distance_km(10.0, 170.0, lat, lon) < 295
    assert (found.activity_probability.values[near] == 0.5).all()


def test_dateline_and_greenwich_are_no_edges():
    table = track("a", 0, [0, 6], [10.0, 10.0], [359.8, 0.2])
    found = probabilities(table, everybody(1, 6)).strike_probability.sel(latitude=10)
    assert found.sel(longitude=[359.0, 359.5, 0.0, 0.5, 1.0]).values.tolist() == [1] * 5


def test_no_storm_gives_zeros_with_the_schema():
    found = probabilities(empty_tracks(), everybody(8, 240))
    assert found.strike_probability.max() == 0
    assert found.sizes["window"] == 5
    assert plumes(empty_tracks(), everybody(8, 6)).sizes["system"] == 0


def test_tracks_of_members_that_were_not_given():
    table = pd.concat([track("a", 0, [0], [1.0], [2.0]), track("b", 1, [0], [1.0], [2.0])])
    for product in (probabilities, plumes):
        with pytest.raises(InputError, match=r"a track of member 1 at \+0 h"):
            product(table, everybody(1, 24))
        with pytest.raises(InputError, match="no member"):
            product(empty_tracks(), {0: [0, 1], 6: []})


def healthy_until(lead_hours: int) -> dict[int, list[int]]:
    """Four members for 96 h; numbers 2 and 3 leave after a lead."""
    return {lead: [0, 1, 2, 3] if lead <= lead_hours else [0, 1] for lead in range(0, 97, 6)}


def test_members_that_fell_ill_count_neither_above_nor_below():
    """All four show the storm for as long as they are healthy: it is certain throughout."""
    table = pd.concat([
        track(f"{n}", n, leads, [10.0] * len(leads), [170.0 + lead / 8 for lead in leads])
        for n, leads in ((0, [0, 48, 96]), (1, [0, 48, 96]), (2, [0, 48, 54]), (3, [0, 48, 54]))
    ])  # fmt: skip
    found = probabilities(table, healthy_until(54))
    assert found.number_of_members == 2
    assert found.number_of_members_in_window.values.tolist() == [4, 2]
    early, late = found.strike_probability_in_window
    assert early.sel(latitude=10, longitude=173) == 1
    assert late.sel(latitude=10, longitude=178) == 1
    assert found.strike_probability.max() == 1
    assert found.activity_probability_above_wind.sel(wind_class=17).max() == 1


def test_a_storm_of_members_that_fell_ill_is_in_the_windows_they_saw():
    table = pd.concat([track(f"{n}", n, [0, 48], [10.0] * 2, [170.0, 172.0]) for n in (2, 3)])
    found = probabilities(table, healthy_until(48))
    assert found.strike_probability_in_window.max(("latitude", "longitude")).values.tolist() == [
        0.5, 0,
    ]  # fmt: skip
    assert found.strike_probability.max() == 0
    assert plumes(table, healthy_until(48)).sizes["system"] == 0


def test_a_quarantine_is_no_dying_storm():
    table = pd.concat([
        track(f"{n}", n, leads, [10.0] * len(leads), [170.0] * len(leads))
        for n, leads in ((0, range(0, 97, 6)), (1, range(0, 73, 6)), (2, range(0, 55, 6)))
    ])  # fmt: skip
    found = plumes(table, healthy_until(54))
    assert found.number_of_members == 2
    assert found.members_alive.values.tolist() == [[2] * 13 + [1] * 4]


def test_plumes_say_how_many_are_alive():
    table = pd.concat([
        track("a", 0, [0, 6, 12], [10, 11, 12], [170, 171, 172]),
        track("b", 1, [0, 6], [10, 11], [170, 171]),
        track("c", 2, [0], [10], [170]),
    ])  # fmt: skip
    found = plumes(table, everybody(3, 18))
    assert found.members_alive.values.tolist() == [[3, 2, 1, 0]]
    assert found.wind_max.sel(quantile=0.5).values[0, :3].tolist() == [21.0, 20.5, 20.0]
    assert np.isnan(found.mslp.values[0, 3]).all()
