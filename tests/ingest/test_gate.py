from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest.admission import admit
from ingest.archive import archived_times, provenance
from ingest.decode import read_messages
from ingest.gate.judge import judge, judge_analysis
from ingest.gate.reference import Planes, Reference, planes_of
from ingest.gate.verdict import Limits, Outcome, Verdict
from ingest.planes import RegridderCache
from ingest.regrid import ConservativeRegridder
from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, ModelError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNEL_NAMES, LEVELS

DATA = Path(__file__).parents[1] / "data"
NOW = Cycle.parse("2026-11-23T00Z")
WIND = [f"{{}}_component_of_wind_{level}" for level in LEVELS] + ["10m_{}_component_of_wind"]
Change = Callable[[Planes], dict[str, np.ndarray]]


def planes_at(made_up_air: Atmosphere, cycle: Cycle) -> dict[str, np.ndarray]:
    return dict(zip(CHANNEL_NAMES, made_up_air.fields(cycle.init_time), strict=True))


@pytest.fixture
def reference(made_up_reference: Reference) -> Reference:
    return made_up_reference


@pytest.fixture(scope="module")
def now(made_up_air: Atmosphere) -> dict[str, np.ndarray]:
    return planes_at(made_up_air, NOW)


@pytest.fixture(scope="module")
def before(made_up_air: Atmosphere) -> dict[str, np.ndarray]:
    return planes_at(made_up_air, NOW.shift(-6))


def names(part: str) -> list[str]:
    return [name for name in CHANNEL_NAMES if part in name]


def swapped(first: str, second: str) -> Change:
    return lambda p: {first: p[second], second: p[first]}


def winds_swapped(p: Planes) -> dict[str, np.ndarray]:
    pairs = [(w.format("u"), w.format("v")) for w in WIND]
    return {a: p[b] for a, b in pairs} | {b: p[a] for a, b in pairs}


def geometric(p: Planes) -> dict[str, np.ndarray]:
    density = {level: level * 100.0 / (287.0 * 250.0) for level in LEVELS}
    return {
        f"vertical_velocity_{level}": -p[f"vertical_velocity_{level}"] / (density[level] * 9.8)
        for level in LEVELS
    }


def with_hole(p: Planes) -> dict[str, np.ndarray]:
    field = p["temperature_500"].copy()
    field[40:50, 60:80] = np.nan
    return {"temperature_500": field}


FAULTS: dict[str, tuple[Change, str]] = {
    "turned by 180 degrees": (
        lambda p: {k: np.roll(x, 120, axis=1) for k, x in p.items()}, "longitude phase"),
    "turned by 3 degrees": (
        lambda p: {k: np.roll(x, 2, axis=1) for k, x in p.items()}, "longitude phase"),
    "upside down": (lambda p: {k: x[::-1] for k, x in p.items()}, "latitude orientation"),
    "celsius": (lambda p: {k: p[k] - 273.15 for k in names("temperature")}, "range"),
    "height for geopotential": (lambda p: {k: p[k] / 9.80665 for k in names("geopot")}, "range"),
    "t levels swapped": (swapped("temperature_850", "temperature_700"), "levels in order"),
    "u levels swapped": (
        swapped("u_component_of_wind_500", "u_component_of_wind_400"), "levels in order"),
    "omega levels swapped": (
        swapped("vertical_velocity_300", "vertical_velocity_500"), "levels in order"),
    "t levels at the top swapped": (
        swapped("temperature_50", "temperature_100"), "hydrostatic"),
    "u and v swapped": (winds_swapped, "geostrophic"),
    "geometric velocity": (geometric, "omega by continuity"),
    "humidity in g/kg": (lambda p: {k: p[k] * 1000 for k in names("humidity")}, "range"),
    "a hole": (with_hole, "missing values"),
    "constant": (lambda p: {"v_component_of_wind_500": np.full_like(p["2m_temperature"], 0.3)},
                 "constant"),
    "one field turned": (
        lambda p: {"u_component_of_wind_500": np.roll(p["u_component_of_wind_500"], 120, 1)},
        "geostrophic"),
    "pressure turned": (
        lambda p: {"mean_sea_level_pressure": np.roll(p["mean_sea_level_pressure"], 120, 1)},
        "agrees with 1000 hPa"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_refused_by_the_check_that_names_it(
    fault: str, now: Planes, reference: Reference
) -> None:
    """Without the analysis before: what is wrong in itself is seen without comparison."""
    change, check = FAULTS[fault]
    verdict = judge({**now, **change(now)}, reference=reference)
    assert verdict.outcome is Outcome.REFUSE
    assert check in {finding.check for finding in verdict.of(Outcome.REFUSE)}


def test_the_previous_cycle_served_again_is_refused(before: Planes, reference: Reference) -> None:
    verdict = judge(before, reference=reference, previous=before)
    assert len(verdict.of(Outcome.REFUSE)) == 82
    assert {f.check for f in verdict.of(Outcome.REFUSE)} == {"same as before"}


@pytest.mark.parametrize("name", ["temperature_850", "specific_humidity_50", "2m_temperature"])
def test_one_field_of_the_previous_cycle_is_refused(
    name: str, now: Planes, before: Planes, reference: Reference
) -> None:
    verdict = judge({**now, name: before[name]}, reference=reference, previous=before)
    (refusal,) = (f for f in verdict.of(Outcome.REFUSE) if f.check == "same as before")
    assert refusal.subject == name


@pytest.mark.parametrize("variable", ["specific_humidity", "temperature"])
@pytest.mark.parametrize(("first", "second"), list(pairwise(LEVELS)))
def test_two_levels_exchanged_are_told_by_the_analysis_before(
    variable: str, first: int, second: int, now: Planes, before: Planes, reference: Reference
) -> None:
    """Also humidity at 50 and 100 hPa, which nothing in one analysis tells apart.

    There the made-up atmosphere has nearly the same field twice: the published statistics' spread
    (4.0e-7) is given to one of them, as a pattern that stays.
    """
    if (variable, first) == ("specific_humidity", 50):
        pattern = 4e-7 * np.sin(2 * np.deg2rad(LATITUDE))[:, None]
        name = "specific_humidity_50"
        now, before = {**now, name: now[name] + pattern}, {**before, name: before[name] + pattern}
    spoilt = {**now, **swapped(f"{variable}_{first}", f"{variable}_{second}")(now)}
    verdict = judge(spoilt, reference=reference, previous=before)
    assert "its own level before" in {f.check for f in verdict.of(Outcome.REFUSE)}


@pytest.mark.parametrize("hours", [-12, -24, -48])
@pytest.mark.parametrize(
    "name", ["geopotential_500", "u_component_of_wind_850", "v_component_of_wind_250"]
)
def test_one_old_field_draws_a_warning(
    name: str, hours: int, now: Planes, before: Planes, reference: Reference,
    made_up_air: Atmosphere,
) -> None:  # fmt: skip
    """Days old and relabelled it fits the statistics, but does not move with its neighbours."""
    old = planes_at(made_up_air, NOW.shift(hours))[name]
    verdict = judge({**now, name: old}, reference=reference, previous=before)
    alarms = verdict.of(Outcome.WARN) + verdict.of(Outcome.REFUSE)
    assert "moves with its neighbours" in {f.check for f in alarms}


def test_a_jump_from_the_analysis_before_is_refused(
    now: Planes, before: Planes, reference: Reference
) -> None:
    verdict = judge(
        now, reference=reference, previous={k: np.roll(x, 120, 1) for k, x in before.items()}
    )
    assert {f.check for f in verdict.of(Outcome.REFUSE)} == {"change"}


# Every sixth week here; the weeks between belong to the long tests.
WEEKS = [week if week % 6 == 0 else pytest.param(week, marks=pytest.mark.e2e) for week in range(53)]


@pytest.mark.parametrize("week", WEEKS)
def test_no_alarm_over_the_made_up_year(
    week: int, made_up_air: Atmosphere, reference: Reference
) -> None:
    """One sample a week, every hour of the day, with the analysis before and without."""
    cycle = Cycle.parse("2026-01-01T00Z").shift(7 * 24 * week + 6 * (week % 4))
    planes = planes_at(made_up_air, cycle)
    for earlier in (None, planes_at(made_up_air, cycle.shift(-6))):
        verdict = judge(planes, reference=reference, previous=earlier)
        alarms = verdict.of(Outcome.WARN) + verdict.of(Outcome.REFUSE)
        assert verdict.outcome is Outcome.PASS, alarms


REAL = sorted(DATA.glob("*.grib*"))


def real_planes(path: Path) -> dict[str, np.ndarray]:
    from ingest.planes import channel_of

    regridders, found = RegridderCache(), {}
    for field in read_messages(path):
        channel = channel_of(field.header.key)
        if channel is not None:
            scale = 9.80665 if field.header.key.param == "gh" else 1.0
            found[channel.name] = regridders.of(field)(field.values) * scale
    return found


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_no_alarm_on_real_fields(path: Path, reference: Reference) -> None:
    """Against statistics of the made-up air, which resemble the published ones to half a std."""
    plain = Reference(reference.mean, reference.std)
    verdict = judge(real_planes(path), reference=plain)
    assert verdict.of(Outcome.REFUSE) == ()


def test_the_imprint_check_knows_the_real_map_turned_and_flipped() -> None:
    """Real 2 m temperature; its own fine structure, cold side up, stands for the mountains."""
    (air,) = real_planes(DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2").values()
    land = next(read_messages(DATA / "ifs_oper_20260404_00z_0h_lsm_0p25_ccsds.grib2"))
    mask = RegridderCache().of(land)(land.values)
    heights = np.where(mask > 0.5, np.maximum(0.0, 290.0 - air) * 1000.0, 0.0)
    known = Reference(surface_geopotential=heights, land=mask)
    assert judge({"2m_temperature": air}, reference=known).outcome is Outcome.PASS
    turned = judge({"2m_temperature": np.roll(air, 120, axis=1)}, reference=known)
    flipped = judge({"2m_temperature": air[::-1]}, reference=known)
    assert "longitude phase" in {f.check for f in turned.of(Outcome.REFUSE)}
    assert "imprint of mountains" in {f.check for f in flipped.of(Outcome.REFUSE)}


def test_statics_of_another_planet_are_refused(now: Planes, reference: Reference) -> None:
    land, heights = reference.land, reference.surface_geopotential
    assert land is not None
    assert heights is not None
    own = {"land_sea_mask": land, "geopotential_at_surface": heights}
    same = judge(now, reference=reference, static_fields=own)
    assert same.outcome is Outcome.PASS
    strange = {"land_sea_mask": land[:, ::-1], "geopotential_at_surface": heights / 9.8}
    other = judge(now, reference=reference, static_fields=strange)
    refused = {(f.check, f.subject) for f in other.of(Outcome.REFUSE)}
    assert refused == {("statics", "land_sea_mask"), ("statics", "geopotential_at_surface")}


def test_what_could_not_be_checked_is_said(now: Planes) -> None:
    verdict = judge(now)
    assert verdict.outcome is Outcome.PASS
    assert {f.check for f in verdict.of(Outcome.UNCHECKED)} == {
        "mean", "change", "longitude phase", "statics",
    }  # fmt: skip


def test_an_analysis_of_two_days_before_is_no_comparison(now: Planes, reference: Reference) -> None:
    analysis = dataset(now, NOW)
    old = dataset(now, NOW.shift(-48))
    verdict = judge_analysis(analysis, reference=reference, previous=old)
    assert "change" in {f.check for f in verdict.of(Outcome.UNCHECKED)}


def dataset(planes: Planes, cycle: Cycle) -> xr.Dataset:
    stack = np.stack([planes[name] for name in CHANNEL_NAMES])[None].astype(np.float32)
    return channels_to_dataset(stack, {"time": [cycle.init_time]}).assign_attrs(source="made-up")


def test_planes_of_a_dataset_are_its_channels(now: Planes) -> None:
    back = planes_of(dataset(now, NOW))
    assert set(back) == set(CHANNEL_NAMES)
    np.testing.assert_array_equal(back["temperature_500"], now["temperature_500"])


@pytest.mark.parametrize(
    ("limits", "value", "outcome"),
    [
        (Limits(1, 2, ""), 0.9, Outcome.PASS),
        (Limits(1, 2, ""), 1.0, Outcome.WARN),
        (Limits(1, 2, ""), 2.0, Outcome.REFUSE),
        (Limits(1, 2, ""), float("nan"), Outcome.REFUSE),
        (Limits(0.5, 0.2, ""), 0.6, Outcome.PASS),
        (Limits(0.5, 0.2, ""), 0.5, Outcome.WARN),
        (Limits(0.5, 0.2, ""), 0.1, Outcome.REFUSE),
    ],
)
def test_limits_work_in_both_directions(limits: Limits, value: float, outcome: Outcome) -> None:
    assert limits.judge("c", "s", value).outcome is outcome


def test_admission_keeps_the_verdict_with_the_analysis(
    now: Planes, before: Planes, reference: Reference, tmp_path: Path
) -> None:
    archive = tmp_path / "analyses.zarr"
    admit(archive, dataset(before, NOW.shift(-6)), reference)
    _, verdict = admit(archive, dataset(now, NOW), reference)
    record = provenance(archive)[NOW.init_time]
    assert record["gate"] == verdict.as_record()
    assert record["gate"]["outcome"] == "pass"
    assert "change" in {finding["check"] for finding in record["gate"]["findings"]}
    assert json.dumps(record, allow_nan=False)


def test_admission_refuses_naming_every_check(
    before: Planes, reference: Reference, tmp_path: Path
) -> None:
    archive = tmp_path / "analyses.zarr"
    admit(archive, dataset(before, NOW.shift(-6)), reference)
    with pytest.raises(
        DataError, match=r"same as before of 2m_temperature: 1, limit 0\.9.*and 81 more"
    ) as caught:
        admit(archive, dataset(before, NOW), reference)
    assert "2026-11-23T00Z from made-up" in caught.value.where
    assert archived_times(archive).size == 1


def test_a_bundle_gives_the_reference(tmp_path: Path) -> None:
    mean, std = np.arange(82.0), np.ones(82)
    np.savez(tmp_path / "norm_stats_mini.npz", state_mean=mean, state_std=std)
    data = np.random.default_rng(0).random((240, 121, 3), np.float32)
    np.savez(tmp_path / "static_vars.npz", data=data, latitude=LATITUDE, longitude=LONGITUDE)
    loaded = Reference.load(tmp_path, "mini")
    np.testing.assert_array_equal(loaded.mean, mean)
    np.testing.assert_array_equal(loaded.land, data[:, :, 1].T)


@pytest.mark.parametrize("damage", ["missing", "shape", "key"])
def test_a_bundle_that_cannot_be_used_is_named(damage: str, tmp_path: Path) -> None:
    if damage != "missing":
        key = "state_mean" if damage == "shape" else "mean"
        np.savez(tmp_path / "norm_stats_mini.npz", **{key: np.zeros(81), "state_std": np.ones(82)})
        np.savez(tmp_path / "static_vars.npz", data=np.zeros((240, 121, 3)))
    with pytest.raises(ModelError, match="state_mean"):
        Reference.load(tmp_path, "mini")


def test_the_worst_of_each_check_is_shown(now: Planes, reference: Reference) -> None:
    shown = judge(now, reference=reference).worst_by_check()
    assert len({f.check for f in shown}) == len(shown)
    everything = judge(now, reference=reference).findings
    for check, worst in (("geostrophic", min), ("hydrostatic", max), ("omega by continuity", min)):
        values = [f.value for f in everything if f.check == check]
        (found,) = (f for f in shown if f.check == check)
        assert found.value == worst(values) or check == "hydrostatic"
    assert Verdict(()).outcome is Outcome.PASS


def test_real_pressure_changes_stay_within_the_limits() -> None:
    """ERA5, 2.5 degrees, six-hourly over ten days: the largest change against the limit."""
    with xr.open_dataset(DATA / "era5_msl_2p5_20251201_40steps.nc", engine="netcdf4") as source:
        axes = source["lat"].values, source["lon"].values
        maps = ConservativeRegridder(*axes)(source["msl"].values)
    scale = Reference(mean=np.full(82, maps.mean()), std=np.full(82, maps.std()))
    shares = []
    for earlier, later in pairwise(maps):
        verdict = judge(
            {"mean_sea_level_pressure": later},
            reference=scale,
            previous={"mean_sea_level_pressure": earlier},
        )
        assert verdict.outcome is Outcome.PASS
        shares += [f.value / f.limit for f in verdict.findings if f.check == "change"]
    assert len(shares) == 39
    assert max(shares) < 0.5
