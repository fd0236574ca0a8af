"""Vortices: always some over sea in both hemispheres, where the truth says, shaped as storms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.vortices import Vortex, patch, vortices
from mosaic_core.contract.grid import EARTH_RADIUS_M
from mosaic_core.contract.variables import CHANNEL_NAMES, LEVELS

SEED = 3
YEAR = np.datetime64("2026-01-01T00", "ns") + np.arange(0, 365 * 4, 3) * np.timedelta64(6, "h")
TIME = np.datetime64("2026-11-23T06", "ns")


def warm(time: np.datetime64) -> list[Vortex]:
    return [v for v in vortices(time, SEED) if v.category == "warm"]


def deepest(category: str) -> Vortex:
    return max(
        (v for v in vortices(TIME, SEED) if v.category == category), key=lambda v: v.depth_pa
    )


class Scene:
    """The fields in a band of rows round a vortex, columns starting 180 degrees west of it."""

    def __init__(self, vortex: Vortex, half_height: float = 8.0) -> None:
        count = round(half_height / 0.25)
        self.latitude = vortex.latitude + 0.25 * np.arange(count, -count - 1, -1)
        self.longitude = vortex.longitude - 180.0 + 0.25 * np.arange(1440)
        self.fields = Atmosphere(self.latitude, self.longitude, SEED).fields(TIME)
        self.middle = count, 720

    def __getitem__(self, name: str) -> np.ndarray:
        """A channel in the square round the vortex."""
        reach = self.middle[0]
        return self.fields[CHANNEL_NAMES.index(name)][:, 720 - reach : 721 + reach]


@pytest.fixture(scope="module")
def storm() -> tuple[Vortex, Scene]:
    vortex = deepest("warm")
    return vortex, Scene(vortex)


@pytest.fixture(scope="module")
def cold_low() -> tuple[Vortex, Scene]:
    vortex = deepest("cold")
    return vortex, Scene(vortex)


def test_every_week_has_strong_ones_in_both_hemispheres():
    for time in YEAR[::7]:
        strong = [v for v in warm(time) if v.depth_pa > 1200]
        assert len(strong) >= 2, time
        assert {v.hemisphere for v in warm(time)} == {1, -1}
        assert len(warm(time)) >= 3


def test_depths_and_latitudes_are_those_of_storms():
    everything = [v for time in YEAR for v in warm(time)]
    depths = np.array([v.depth_pa for v in everything])
    assert 2500 < depths.max() <= 4000
    assert all(7 < abs(v.latitude) < 35 for v in everything)


def test_warm_vortices_stay_over_sea():
    atmosphere = Atmosphere.model(SEED)
    land = atmosphere.planet.land_sea_mask
    for time in YEAR:
        for v in warm(time):
            row, column = round((v.latitude + 90) / 1.5), round(v.longitude / 1.5) % 240
            assert land[row, column] < 0.5, (time, v)


def test_one_crosses_the_dateline_and_one_deepens():
    step = np.timedelta64(6, "h")
    tracks: dict[str, list[Vortex]] = {}
    for time in TIME + np.arange(40) * step:
        for v in vortices(time, SEED):
            tracks.setdefault(v.name, []).append(v)
    longitudes = [[v.longitude for v in track] for track in tracks.values()]
    assert any(min(t) < 180.0 < max(t) and max(t) - min(t) < 90 for t in longitudes)
    depths = [[v.depth_pa for v in track] for track in tracks.values()]
    assert any(max(d) - d[0] > 1500 for d in depths)
    for track in tracks.values():
        jumps = [
            np.hypot(b.latitude - a.latitude, (b.longitude - a.longitude + 180) % 360 - 180)
            for a, b in pairwise(track)
        ]
        assert all(0.05 < jump < 2.5 for jump in jumps)


def test_seeds_give_other_storms():
    assert vortices(TIME, 1) != vortices(TIME, 2)
    assert vortices(TIME, 1) == vortices(TIME, 1)


def test_pressure_minimum_lies_where_the_truth_says(storm: tuple[Vortex, Scene]):
    vortex, scene = storm
    pressure = scene["mean_sea_level_pressure"]
    row, column = np.unravel_index(pressure.argmin(), pressure.shape)
    assert np.hypot(row - scene.middle[0], column - scene.middle[0]) <= 1.5
    assert abs(pressure.min() - vortex.central_pressure_pa) < 800.0
    rim = np.concatenate([pressure[0], pressure[-1], pressure[:, 0], pressure[:, -1]])
    assert rim.mean() - pressure.min() > 0.7 * vortex.depth_pa


@pytest.mark.parametrize("name", ["10m_{}_component_of_wind", "{}_component_of_wind_850"])
def test_winds_turn_the_right_way(storm: tuple[Vortex, Scene], name: str):
    for vortex, scene in (storm, _other_hemisphere(storm[0])):
        u, v = scene[name.format("u")], scene[name.format("v")]
        centre, reach = scene.middle[0], 4
        circulation = (
            v[centre, centre + reach] - v[centre, centre - reach]
            - u[centre - reach, centre] + u[centre + reach, centre]
        )  # fmt: skip
        assert np.sign(circulation) == vortex.hemisphere
        assert np.hypot(u, v).max() > 15.0


def _other_hemisphere(vortex: Vortex) -> tuple[Vortex, Scene]:
    candidates = [v for v in warm(TIME) if v.hemisphere != vortex.hemisphere]
    other = max(candidates, key=lambda v: v.depth_pa)
    return other, Scene(other, 3.0)


def thickness_excess(scene: Scene) -> float:
    """How much thicker 500-300 hPa is in the centre than 6 degrees away, m2 s-2."""
    thickness = scene["geopotential_300"] - scene["geopotential_500"]
    centre = scene.middle[0]
    around = [
        thickness[centre + dy, centre + dx] for dy, dx in ((24, 0), (-24, 0), (0, 24), (0, -24))
    ]
    return float(thickness[centre, centre] - np.mean(around))


def test_cores_are_warm_and_cold(storm: tuple[Vortex, Scene], cold_low: tuple[Vortex, Scene]):
    assert thickness_excess(storm[1]) > 200.0
    assert thickness_excess(cold_low[1]) < -60.0


def test_core_is_moist_and_rises(storm: tuple[Vortex, Scene]):
    _, scene = storm
    centre = scene.middle[0]
    assert scene["vertical_velocity_500"][centre, centre] < -0.3
    moisture = scene["specific_humidity_600"]
    assert moisture[centre, centre] > 1.3 * moisture.mean()


def test_inflow_obeys_continuity():
    """Divergence of the vortex's own wind, by finite differences, is -d(omega)/dp."""
    vortex = Vortex("t", "warm", 15.0, 180.0, 3000.0, 98_000.0, 80e3)
    spacing = 0.05
    latitude, longitude = 15 + spacing * np.arange(-60, 61), 180 + spacing * np.arange(-60, 61)
    found = patch(vortex, latitude, longitude)
    assert found is not None
    cosine = np.cos(np.radians(latitude))[:, None]
    step = np.radians(spacing)
    divergence = (
        np.gradient(found.eastward_wind, step, axis=2)
        + np.gradient(found.northward_wind * cosine, step, axis=1)
    ) / (EARTH_RADIUS_M * cosine)
    thick = np.gradient(found.omega, np.array(LEVELS) * 100.0, axis=0)
    level = LEVELS.index(850)
    inner = (level, slice(40, 81), slice(40, 81))
    ratio = -(divergence[inner] * thick[inner]).sum() / (thick[inner] ** 2).sum()
    assert 0.6 < ratio < 1.6
    assert divergence[LEVELS.index(925), 60, 60] < 0 < divergence[LEVELS.index(300), 60, 60]


def test_far_grids_get_nothing():
    vortex = Vortex("t", "warm", 15.0, 0.0, 3000.0, 98_000.0, 80e3)
    assert patch(vortex, np.array([-60.0, -59.0]), np.arange(0.0, 360.0, 1.5)) is None
