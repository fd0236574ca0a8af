"""Tracks against a made-up truth: both hemispheres, dateline, Greenwich, genesis, decoys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import DataError, InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.cyclones.identity import KnownStorm, identified
from postprocess.products.cyclones.sphere import distance_km
from postprocess.products.cyclones.stream import CycloneTracker
from postprocess.products.cyclones.thresholds import TRACKER_VERSION, TRACKER_VERSIONS
from postprocess.products.cyclones.tracks import TRACK_COLUMNS, empty_tracks, validate_tracks

CHANNELS = (
    "mean_sea_level_pressure",
    "geopotential_300",
    "geopotential_500",
    "u_component_of_wind_850",
    "v_component_of_wind_850",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)
INIT = np.datetime64("2026-09-01T00", "ns")
LEADS = range(0, 121, 6)
SUBCELLS = (np.arange(5) - 2) * 0.3  # degrees: a cell's value is the mean over 5 x 5 points


@dataclass(frozen=True)
class Vortex:
    """A vortex that moves steadily; `warm` until the given lead; there from `born` on."""

    latitude: float
    longitude: float
    north_per_day: float
    east_per_day: float
    depth_pa: float
    warm_until: int = 1000
    born: int = 0
    radius_km: float = 120.0

    def position(self, lead: int) -> tuple[float, float]:
        days = lead / 24
        longitude = self.longitude + self.east_per_day * days
        return self.latitude + self.north_per_day * days, longitude % 360

    def depth(self, lead: int) -> float:
        return self.depth_pa * min(1.0, (lead - self.born) / 36 + 0.25) if lead >= self.born else 0


TRUTH = (
    Vortex(15.2, 140.4, 1.5, -3.0, 3200),
    Vortex(12.7, 178.1, 1.0, 2.0, 2400),  # crosses the dateline
    Vortex(-14.3, 357.2, -1.2, 2.5, 2600),  # crosses Greenwich
    Vortex(-12.1, 75.5, -1.5, -2.4, 3600),
    Vortex(17.8, 300.3, 2.0, -3.1, 2200, born=36),  # genesis
    Vortex(24.6, 160.0, 3.5, 3.0, 2800, warm_until=72),  # transition
)
WEAK = Vortex(11.3, 250.9, 0.6, -2.2, 700)
DECOYS = (Vortex(46.0, 330.0, 1.0, 6.0, 3000, -1, radius_km=300),
          Vortex(-30.0, 200.0, -1.0, 5.0, 2200, -1, radius_km=300))  # fmt: skip


def fields_at(lead: int, vortices, seed: int) -> np.ndarray:
    """(channel, latitude, longitude) of a quiet world with vortices and smooth noise."""
    rng = np.random.default_rng(seed * 1000 + lead)
    noise = _noise(rng)
    msl = 101_300 + 120 * noise
    thickness = 36_000 + 25 * _noise(rng)
    u, v = np.zeros((2, *noise.shape))
    for vortex in vortices:
        depth = vortex.depth(lead)
        if not depth:
            continue
        shape, east, north = _profile(vortex, lead)
        msl -= depth * shape
        thickness += (0.12 if lead <= vortex.warm_until else -0.06) * depth * shape
        speed = 0.9 * np.sqrt(depth) * shape**0.5 * np.sign(vortex.latitude)
        u -= speed * north
        v += speed * east
    return np.stack([msl, thickness + 55_000, np.full_like(msl, 55_000), 1.2 * u, 1.2 * v, u, v])


def _noise(rng) -> np.ndarray:
    waves = np.zeros((121, 240))
    for m in range(1, 9):
        phase, across = rng.uniform(0, 2 * np.pi, 2)
        rows = np.cos(np.deg2rad(LATITUDE) * rng.integers(1, 7) + across)
        waves += rows[:, None] * np.cos(m * np.deg2rad(LONGITUDE) + phase) / m
    return waves * np.cos(np.deg2rad(LATITUDE))[:, None]


def _profile(vortex: Vortex, lead: int):
    """Cell means of a pointed profile, and the unit vector away from the centre."""
    latitude, longitude = vortex.position(lead)
    shape = np.zeros((121, 240))
    for north in SUBCELLS:
        for east in SUBCELLS:
            r = distance_km(
                latitude, longitude, (LATITUDE + north)[:, None], (LONGITUDE + east)[None, :]
            )
            ratio = (vortex.radius_km / np.maximum(r, 1.0)) ** 1.4
            shape += -np.expm1(-ratio) * np.exp(-((r / 700) ** 2)) / SUBCELLS.size**2
    turn = (LONGITUDE[None, :] - longitude + 180) % 360 - 180
    east = turn * np.cos(np.deg2rad(latitude))
    north = np.broadcast_to(LATITUDE[:, None] - latitude, shape.shape)
    length = np.maximum(np.hypot(east, north), 1e-6)
    return shape, east / length, north / length


def step_of(number: int, lead: int, members: list[np.ndarray]) -> ForecastStep:
    fields = np.stack(members).astype(np.float32)
    hours = np.timedelta64(lead, "h").astype("timedelta64[ns]")
    return ForecastStep(INIT, number, hours, tuple(range(len(members))), CHANNELS, fields)


@pytest.fixture(scope="module")
def world() -> list[np.ndarray]:
    """One member's fields at every lead."""
    return [fields_at(lead, (*TRUTH, WEAK, *DECOYS), 1) for lead in LEADS]


def track(world, **options) -> pd.DataFrame:
    tracker = CycloneTracker(**options)
    for number, (lead, fields) in enumerate(zip(LEADS, world, strict=True)):
        tracker.update(step_of(number, lead, [fields]))
    return tracker.result()


@pytest.fixture(scope="module")
def tracks(world) -> pd.DataFrame:
    return track(world)


def matches(tracks: pd.DataFrame, vortex: Vortex) -> dict[int, float]:
    """Lead -> distance in km of the nearest track point within 300 km."""
    found = {}
    for lead in LEADS:
        points = tracks[tracks.lead_hours == lead]
        if vortex.depth(lead) >= 1500 and len(points):
            gap = distance_km(*vortex.position(lead), points.latitude, points.longitude).min()
            if gap <= 300:
                found[lead] = float(gap)
    return found


def test_storms_deeper_than_15_hpa_are_hit_with_small_error(tracks):
    due = sum(vortex.depth(lead) >= 1500 for vortex in TRUTH for lead in LEADS)
    # The transition ends 24 h after its core turned cold: those later points are not due.
    late = sum(lead > TRUTH[5].warm_until + 24 for lead in LEADS)
    errors = [gap for vortex in TRUTH for gap in matches(tracks, vortex).values()]
    assert len(errors) >= 0.95 * (due - late)
    assert np.mean(errors) <= 20.0
    assert np.percentile(errors, 90) <= 40.0


def test_one_track_a_storm_and_no_decoy(tracks):
    # The weak vortex may be found; each other storm has one track.
    assert len(TRUTH) <= tracks.track_id.nunique() <= len(TRUTH) + 1
    for decoy in DECOYS:
        for lead in LEADS:
            points = tracks[tracks.lead_hours == lead]
            gap = distance_km(*decoy.position(lead), points.latitude, points.longitude)
            assert gap.min() > 500


def test_transition_is_kept_for_a_day_and_flagged(tracks):
    leads = matches(tracks, TRUTH[5])
    assert max(leads) == TRUTH[5].warm_until + 24
    latitude, longitude = TRUTH[5].position(90)
    late = tracks[tracks.lead_hours == 90]
    own = late.iloc[distance_km(latitude, longitude, late.latitude, late.longitude).argmin()]
    assert not own.warm_core


def test_genesis_and_existing_are_told_apart(tracks):
    first = tracks.sort_values("lead_hours").groupby("track_id").first()
    assert (first[first.category == "existing"].lead_hours == 0).all()
    assert (first[first.category == "genesis"].lead_hours > 0).all()
    assert set(first.category) == {"existing", "genesis"}


def test_system_ids_are_of_ecmwfs_form(tracks):
    assert tracks.system_id.str.fullmatch(r"[7-9]\d[LECWABSPQ]").all()


def test_longitude_roll_moves_the_tracks(world, tracks):
    rolled = track([np.roll(fields, 61, axis=-1) for fields in world])
    assert len(rolled) == len(tracks)
    for lead in (0, 60, 120):
        a = tracks[tracks.lead_hours == lead].sort_values("mslp_pa")
        b = rolled[rolled.lead_hours == lead].sort_values("mslp_pa")
        np.testing.assert_allclose(b.latitude, a.latitude, atol=1e-9)
        np.testing.assert_allclose(b.longitude, (a.longitude + 91.5) % 360, atol=1e-9)


def test_mirrored_world_has_mirrored_tracks(world, tracks):
    signs = np.array([1, 1, 1, 1, -1, 1, -1])[:, None, None]
    mirrored = track([fields[:, ::-1] * signs for fields in world])
    assert len(mirrored) == len(tracks)
    a = tracks.sort_values(["lead_hours", "mslp_pa"])
    b = mirrored.sort_values(["lead_hours", "mslp_pa"])
    np.testing.assert_allclose(b.latitude, -a.latitude, atol=1e-6)
    np.testing.assert_allclose(b.vorticity_850, a.vorticity_850, rtol=1e-5)
    assert (a.vorticity_850 > 0).all()


def test_members_share_an_identity(world):
    """Three members, one without the genesis: ids agree, and the genesis is in two of them."""
    other = [fields_at(lead, (*TRUTH[:4], TRUTH[5]), 2) for lead in LEADS]
    third = [fields_at(lead, TRUTH, 3) for lead in LEADS]
    tracker = CycloneTracker()
    for number, lead in enumerate(LEADS):
        tracker.update(step_of(number, lead, [world[number], other[number], third[number]]))
    table = tracker.result()
    late = table[table.lead_hours == 96]
    for vortex, members in ((TRUTH[4], {0, 2}), (TRUTH[0], {0, 1, 2}), (TRUTH[3], {0, 1, 2})):
        gap = distance_km(*vortex.position(96), late.latitude, late.longitude)
        near = late[gap < 300]
        assert near.system_id.nunique() == 1
        assert set(near.number) == members


def test_known_storms_give_their_names(world):
    latitude, longitude = TRUTH[0].position(0)
    known = [KnownStorm("27W", "IN-FA", latitude + 1.5, longitude), KnownStorm("01L", "FAR", 40, 5)]
    table = track(world, known=known)
    named = table[table.storm_id != ""]
    assert set(named.system_id) == {"27W"}
    assert set(named.storm_name) == {"IN-FA"}
    assert named.lead_hours.min() == 0
    assert len(named) == len(LEADS)


def starts(*places: tuple[int, float]) -> pd.DataFrame:
    """Tracks from lead 0, as (number, longitude) at 18 N, not identified yet."""
    unknown = dict.fromkeys(("system_id", "storm_id", "storm_name"), "")
    return pd.DataFrame(
        [
            {"track_id": f"{number}-{place}", "number": number, "lead_hours": lead,
             "latitude": 18.0, "longitude": longitude + lead / 60, **unknown}
            for place, (number, longitude) in enumerate(places)
            for lead in (0, 6)
        ]
    )  # fmt: skip


NEAR, FAR = KnownStorm("05W", "NEAR", 18.2, 130.0), KnownStorm("06W", "FAR", 18.0, 131.6)


@pytest.mark.parametrize("known", [(NEAR, FAR), (FAR, NEAR)])
def test_a_track_is_one_known_storm_whatever_their_order(known):
    """Member 0 has one track near both, member 1 one for each, the shared one nearer to NEAR."""
    limits = TRACKER_VERSIONS[TRACKER_VERSION]
    table = identified(starts((0, 130.0), (1, 130.0), (1, 130.5)), known, limits)
    names = table.groupby("track_id").storm_name.unique().map(list)
    assert names.to_dict() == {"0-0": ["NEAR"], "1-1": ["NEAR"], "1-2": ["FAR"]}


def test_no_birth_over_land(world):
    land = np.zeros((121, 240))
    land[:, 80:110] = 1.0  # 120E to 165E holds the first storm and the transition
    table = track(world, land=land)
    first = table.sort_values("lead_hours").groupby("track_id").first()
    assert not first.longitude.between(121, 164).any()
    assert table.track_id.nunique() >= 4


def test_no_storm_is_an_empty_table_with_the_schema():
    table = track([fields_at(lead, (), 4) for lead in LEADS])
    assert table.empty
    assert list(table.columns) == list(TRACK_COLUMNS)
    assert validate_tracks(empty_tracks(), where="x").empty


def test_bad_input_is_named(world):
    with pytest.raises(StoreError, match="no step"):
        CycloneTracker().result()
    with pytest.raises(InputError, match="land mask"):
        CycloneTracker(land=np.zeros((240, 121)))
    step = step_of(0, 0, [world[0]])
    incomplete = ForecastStep(INIT, 0, step.lead_time, (0,), CHANNELS[1:], step.fields[:, 1:])
    with pytest.raises(StoreError, match="no channel mean_sea_level_pressure"):
        CycloneTracker().update(incomplete)


def test_table_in_wrong_units_is_refused(tracks):
    with pytest.raises(DataError, match="is it in hPa"):
        validate_tracks(tracks.assign(mslp_pa=tracks.mslp_pa / 100), where="tracks.csv")
    with pytest.raises(DataError, match="longitude: outside"):
        validate_tracks(tracks.assign(longitude=tracks.longitude - 360), where="tracks.csv")
    with pytest.raises(DataError, match="basin: missing"):
        validate_tracks(tracks.drop(columns="basin"), where="tracks.csv")
