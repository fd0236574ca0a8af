"""All products from one stream, from the stored forecast to the bit, and what is refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, ModelError, StoreError
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.products.cyclones.formats import read_tracks
from postprocess.products.health import least_healthy
from postprocess.products.remake import RemakeOptions, remake_products
from postprocess.products.stored import stored_steps
from postprocess.products.suite import PRODUCTS, ProductOptions, ProductSuite
from postprocess.rounding import bit_round, mantissa_bits

INIT = np.datetime64("2026-08-20T00", "ns")
LEADS = 5


@pytest.fixture(scope="module")
def forecast() -> list[ForecastStep]:
    """Three members that part slowly, a day at 6 h."""
    atmosphere = Atmosphere.model(5)
    steps = []
    for lead in range(LEADS):
        times = [INIT + np.timedelta64(360 * lead + 9 * lead * m, "m") for m in range(3)]
        fields = np.stack([atmosphere.fields(time) for time in times])
        hours = np.timedelta64(6 * lead, "h").astype("timedelta64[ns]")
        steps.append(ForecastStep(INIT, lead, hours, (0, 1, 2), CHANNEL_NAMES, fields))
    return steps


@pytest.fixture(scope="module")
def store(forecast, tmp_path_factory) -> Path:
    """The forecast as a plain Zarr store of the contract's structure."""
    return write(forecast, tmp_path_factory.mktemp("run") / "forecast.zarr")


def make(steps, folder: Path, **options) -> list[Path]:
    folder.mkdir()
    # Two statistics: the others are tested on their own, and writing them takes most of the time.
    chosen = ProductOptions(statistics=("mean", "std"), **options)
    with ProductSuite(folder, chosen) as suite:
        for step in steps:
            suite.update(step)
        return suite.finish({"run_id": "test"})


@pytest.fixture(scope="module")
def made(forecast, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "products"
    make(forecast, folder)
    return folder


def content(folder: Path) -> dict[str, object]:
    """Every file's bytes; Zarr stores by their values."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".zarr":
            with xr.open_zarr(path, chunks=None, consolidated=True) as dataset:
                found[path.name] = dataset.load()
        elif path.suffix != ".nc":  # NetCDF files carry no promise of equal bytes
            found[path.name] = path.read_bytes()
    return found


def test_every_product_is_written_and_nothing_is_left_over(made):
    assert {path.name for path in made.iterdir()} == {
        "ensemble.zarr", "probabilities.zarr", "meteograms.zarr", "spectra.zarr",
        "scalar_spectra.zarr", "plumes.zarr",
        "cyclone_probability.zarr", "health.csv", "health.json", "tracks.parquet", "tracks.csv",
        "tracks.geojson", "tracks.nc", "tracks.dat",
    }  # fmt: skip
    assert len(read_tracks(made / "tracks.parquet"))
    with xr.open_zarr(made / "ensemble.zarr", chunks=None, consolidated=True) as ensemble:
        assert ensemble.sizes["lead_time"] == LEADS
        assert ensemble.attrs["run_id"] == "test"


def assert_same(folder: Path, other: Path) -> None:
    """Both hold the same products, to the bit."""
    first, again = content(folder), content(other)
    assert first.keys() == again.keys()
    for name, values in first.items():
        if isinstance(values, xr.Dataset):
            xr.testing.assert_identical(values, again[name])
        else:
            assert values == again[name], name


def test_stored_forecast_gives_the_same_bits(made, store, tmp_path):
    make(stored_steps(store), tmp_path / "again")
    assert_same(made, tmp_path / "again")


def test_the_products_of_a_rounded_store_are_made_again_to_the_bit(
    forecast: list[ForecastStep], tmp_path: Path
) -> None:
    """As of a run: its rounding is an attribute of the store."""
    rounded = [replace(step, fields=step.fields.copy()) for step in forecast[:2]]
    for step in rounded:
        for index, bits in enumerate(mantissa_bits("default") or ()):
            for values in step.fields[:, index]:
                bit_round(values, bits)
    store = write(rounded, tmp_path / "forecast.zarr", rounding="default")
    live, again = tmp_path / "live", tmp_path / "again"
    options = ProductOptions(only=("ensemble",), rounding="default")
    with ProductSuite(live, options) as suite:
        for step in rounded:
            suite.update(step)
        suite.finish({"member_health": [], "rounding": "default"})
    remake_products(store, again, RemakeOptions(only=("ensemble",)))
    assert_same(live, again)


@pytest.mark.parametrize(("asked", "fails"), [(None, False), (3, True)])
def test_as_many_must_be_healthy_as_the_run_asked(
    forecast: list[ForecastStep], tmp_path: Path, asked: int | None, fails: bool
) -> None:
    store = write(blown_up(forecast, 1), tmp_path / "f.zarr", "member 1: non-finite at +12 h")
    options = RemakeOptions(only=("meteograms",), minimum_members=asked)
    expected = pytest.raises(ModelError, match="healthy") if fails else nullcontext()
    with expected:
        remake_products(store, tmp_path / "again", options)


def test_half_of_the_members_must_be_healthy_unless_told() -> None:
    assert [least_healthy(members, None) for members in (2, 3, 8, 50)] == [2, 2, 4, 25]
    assert least_healthy(50, 40) == 40


def test_a_choice_of_products(forecast, tmp_path):
    paths = make(forecast[:2], tmp_path / "some", only=("spectra", "cyclones"))
    names = {path.name for path in paths}
    assert "spectra.zarr" in names
    assert "tracks.csv" in names
    assert not {"ensemble.zarr", "health.json"} & names


def test_quarantine_reaches_every_product(forecast, tmp_path):
    steps = list(forecast)
    sick = steps[3].fields.copy()
    sick[1, 0] = np.nan
    steps[3] = ForecastStep(INIT, 3, steps[3].lead_time, (0, 1, 2), CHANNEL_NAMES, sick)
    folder = tmp_path / "sick"
    make(steps, folder)
    report = json.loads((folder / "health.json").read_text())
    assert report["flagged"]
    assert report["healthy_members"] == 2
    assert "non-finite" in report["quarantined"]["1"]
    with xr.open_zarr(folder / "ensemble.zarr", chunks=None, consolidated=True) as ensemble:
        assert ensemble.number_of_members.values.tolist() == [3, 3, 3, 2, 2]
        assert np.isfinite(ensemble["2m_temperature_mean"]).all()
    with xr.open_zarr(folder / "spectra.zarr", chunks=None, consolidated=True) as spectra:
        gone = np.isnan(spectra.ke_rot.sel(number=1)).all(("level", "degree")).values
        assert gone.tolist() == [False, False, False, True, True]
    tracks = read_tracks(folder / "tracks.csv")
    assert tracks[tracks.number == 1].lead_hours.max() < 18
    with xr.open_zarr(folder / "meteograms.zarr", chunks=None, consolidated=True) as points:
        assert points.number_of_members.values.tolist() == [3, 3, 3, 2, 2]
    with xr.open_zarr(folder / "cyclone_probability.zarr", chunks=None) as cyclones:
        assert cyclones.number_of_members == 2
        assert cyclones.number_of_members_in_window.values.tolist() == [2]
    with xr.open_zarr(folder / "plumes.zarr", chunks=None) as found:
        assert found.number_of_members == 2


def test_unfinished_store_names_lead_and_members(store, tmp_path):
    with xr.open_zarr(store, chunks=None, consolidated=False, decode_timedelta=True) as dataset:
        holed = dataset.load()
    holed["temperature"][0, 1, 2] = np.nan
    holed.to_zarr(tmp_path / "holed.zarr", consolidated=False)
    with pytest.raises(StoreError, match=r"lead \+12 h is missing for members \[1\] \(temperature"):
        list(stored_steps(tmp_path / "holed.zarr"))


def blown_up(forecast: list[ForecastStep], number: int) -> list[ForecastStep]:
    """The forecast with a member that is NaN from +12 h on."""
    steps = list(forecast)
    for lead in range(2, LEADS):
        fields = steps[lead].fields.copy()
        fields[number] = np.nan
        steps[lead] = replace(steps[lead], fields=fields)
    return steps


def write(steps: list[ForecastStep], path: Path, *member_health: str, **attributes: str) -> Path:
    array = np.stack([step.fields for step in steps], axis=1)[None]
    leading = {
        "init_time": np.array([INIT]),
        "number": np.arange(3),
        "lead_time": np.array([step.lead_time for step in steps]),
    }
    dataset = channels_to_dataset(np.ascontiguousarray(array), leading)
    dataset.attrs.update(attributes, member_health=list(member_health))
    dataset.to_zarr(path, consolidated=False)
    return path


def test_a_forecast_with_a_member_that_blew_up_is_made_again(forecast, tmp_path):
    steps = blown_up(forecast, 1)
    make(steps, tmp_path / "live")
    reason = json.loads((tmp_path / "live" / "health.json").read_text())["quarantined"]["1"]
    store = write(steps, tmp_path / "forecast.zarr", f"member 1: {reason}")
    make(stored_steps(store), tmp_path / "again")
    assert_same(tmp_path / "live", tmp_path / "again")
    some = tmp_path / "some"
    remake_products(store, some, RemakeOptions(only=("meteograms",)))
    with xr.open_zarr(some / "meteograms.zarr", chunks=None) as points:
        assert points.number_of_members.values.tolist() == [3, 3, 2, 2, 2]


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ([], r"\+12 h is missing for members \[1\]"),
        (["member 2: blew up at +6 h"], r"\+12 h is missing for members \[1\]"),
        (["member 1: blew up at +18 h"], r"\+12 h is missing for members \[1\]"),
    ],
)
def test_a_member_nobody_quarantined_is_missing(forecast, tmp_path, told, missing):
    store = write(blown_up(forecast, 1), tmp_path / "forecast.zarr", *told)
    with pytest.raises(StoreError, match=missing):
        list(stored_steps(store))


def test_a_lead_without_any_member_is_missing(forecast, tmp_path):
    steps = forecast[:3]
    for number in range(3):
        steps = blown_up([*steps, *forecast[3:]], number)[:3]
    told = [f"member {number}: blew up at +6 h" for number in range(3)]
    store = write(steps, tmp_path / "forecast.zarr", *told)
    with pytest.raises(StoreError, match=r"\+12 h is missing for members \[0, 1, 2\]"):
        list(stored_steps(store))


def test_bad_input_is_named(forecast, tmp_path):
    with pytest.raises(InputError, match="no such products: spectrum"):
        ProductOptions(only=("spectrum",))
    with pytest.raises(InputError, match="no such file or store"):
        list(stored_steps(tmp_path / "absent.zarr"))
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(InputError, match="not a forecast"):
        list(stored_steps(tmp_path / "other.zarr"))
    with ProductSuite(tmp_path) as suite, pytest.raises(StoreError, match="no step"):
        suite.finish({})
    first = forecast[0]
    single = ForecastStep(INIT, 0, first.lead_time, (0,), CHANNEL_NAMES, first.fields[:1])
    with ProductSuite(tmp_path) as suite, pytest.raises(StoreError, match="at least 2"):
        suite.update(single)
    few = ForecastStep(INIT, 0, first.lead_time, (0, 1, 2), CHANNEL_NAMES[:4], first.fields[:, :4])
    with pytest.raises(StoreError, match="no channel"):
        make([few], tmp_path / "few", only=("spectra",))
    assert set(PRODUCTS) >= {"ensemble", "spectra", "cyclones", "health"}
