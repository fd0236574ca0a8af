from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest.archive import analysis_digest
from ingest.intake import take_in
from ingest.regrid import ConservativeRegridder
from ingest.stores import WEATHERBENCH, StoreSource, read_store, store_times
from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, SourceError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ANALYSIS, channels_to_dataset
from mosaic_core.contract.variables import VARIABLES
from tests.postprocess.publish.servers import Server, fake_gcs

CYCLE = Cycle.parse("2020-02-29T12Z")
CYCLES = [CYCLE.shift(-6), CYCLE, CYCLE.shift(6)]


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    """Three analyses that no turn or flip leaves the same."""
    channel = np.arange(82.0)[:, None, None]
    pattern = np.sin(np.deg2rad(LATITUDE))[:, None] + np.cos(np.deg2rad(LONGITUDE - 20.0))[None]
    planes = np.stack([channel + (1 + n) * pattern for n in range(3)]).astype(np.float32)
    return channels_to_dataset(planes, {"time": [c.init_time for c in CYCLES]})


LAYOUTS = {
    "longitude before latitude": lambda ds: ds.transpose("time", "level", "longitude", "latitude"),
    "latitude before longitude": lambda ds: ds,
    "north to south": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "levels descending": lambda ds: ds.isel(level=slice(None, None, -1)),
    "longitude from -180": lambda ds: ds.roll(longitude=120, roll_coords=False).assign_coords(
        longitude=np.arange(-180.0, 180.0, 1.5)),
    "short names of axes": lambda ds: ds.rename(latitude="lat", longitude="lon"),
    "more levels and variables": lambda ds: xr.concat(
        [ds, ds.isel(level=[0]).assign_coords(level=[10])], "level", data_vars="minimal"
    ).assign(relative_humidity=ds["temperature"]),
}  # fmt: skip


def written(ds: xr.Dataset, path: Path, *, zarr_format: int = 2, units: str = "") -> StoreSource:
    stored = ds.drop_vars("provenance", errors="ignore").copy()
    encoding = {"time": {"units": units, "dtype": "int64"}} if units else {}
    stored.to_zarr(path, zarr_format=zarr_format, consolidated=zarr_format == 2, encoding=encoding)
    return StoreSource("test", str(path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_analysis(layout: str, truth: xr.Dataset, tmp_path: Path) -> None:
    source = written(LAYOUTS[layout](truth), tmp_path / "a.zarr", units="hours since 1959-01-01")
    analysis = read_store(source, CYCLE)
    assert ANALYSIS.faults(analysis) == []
    assert analysis_digest(analysis) == analysis_digest(truth.isel(time=[1]))


@pytest.mark.parametrize(
    "units", ["hours since 1900-01-01", "days since 2020-02-29", "seconds since 1970-01-01"]
)
def test_the_epoch_of_time_is_read(units: str, truth: xr.Dataset, tmp_path: Path) -> None:
    days = truth.isel(time=[1]).assign_coords(time=[np.datetime64("2020-02-29T00", "ns")])
    source = written(days, tmp_path / "a.zarr", units=units)
    assert store_times(source).tolist() == [Cycle.parse("2020-02-29T00Z").init_time.astype(int)]


def test_zarr_v3_is_read_too(truth: xr.Dataset, tmp_path: Path) -> None:
    source = written(truth, tmp_path / "a.zarr", zarr_format=3)
    assert analysis_digest(read_store(source, CYCLE)) == analysis_digest(truth.isel(time=[1]))


def test_another_global_grid_is_regridded(truth: xr.Dataset, tmp_path: Path) -> None:
    latitude, longitude = np.linspace(90, -90, 181), np.arange(360.0)
    fine = truth.isel(time=[1]).interp(latitude=latitude, longitude=longitude % 358.5)
    fine = fine.assign_coords(longitude=longitude).astype(np.float32)
    analysis = read_store(written(fine, tmp_path / "a.zarr"), CYCLE)
    expected = ConservativeRegridder(latitude, longitude)(fine["2m_temperature"].values[0])
    np.testing.assert_array_equal(analysis["2m_temperature"].values[0], expected)


def test_a_time_that_is_not_there_names_those_that_are(truth: xr.Dataset, tmp_path: Path) -> None:
    source = written(truth, tmp_path / "a.zarr")
    with pytest.raises(SourceError, match=r"it has 3 times, 2020-02-29T06.* to 2020-02-29T18"):
        read_store(source, CYCLE.shift(24))


@pytest.mark.parametrize("spoil", ["nan", "level", "variable", "dims"])
def test_an_incomplete_analysis_is_refused(spoil: str, truth: xr.Dataset, tmp_path: Path) -> None:
    changed = truth.copy(deep=True)
    if spoil == "nan":
        changed["vertical_velocity"][1, 3] = np.nan
        told = "vertical_velocity: 29040 values are NaN"
    elif spoil == "level":
        changed = changed.drop_sel(level=850)
        told = r"levels \[850\] are missing"
    elif spoil == "variable":
        changed = changed.drop_vars("specific_humidity")
        told = "lacks specific_humidity"
    else:
        changed["temperature"] = changed["temperature"].expand_dims(number=1)
        told = "dims are"
    with pytest.raises(DataError, match=told):
        read_store(written(changed, tmp_path / "a.zarr"), CYCLE)


@pytest.mark.parametrize("address", ["/nowhere/a.zarr", "file:///nowhere/a.zarr"])
def test_a_store_that_is_not_there_is_named(address: str) -> None:
    with pytest.raises(SourceError, match="cannot open the store"):
        read_store(StoreSource("x", address), CYCLE)


def test_a_store_without_a_time_says_so(truth: xr.Dataset, tmp_path: Path) -> None:
    source = written(truth.isel(time=[]), tmp_path / "a.zarr", units="hours since 1959-01-01")
    with pytest.raises(SourceError, match="it has 0 times"):
        read_store(source, CYCLE)


def damaged(truth: xr.Dataset, path: Path, variable: str) -> StoreSource:
    """A store with chunks of `variable` that no codec reads."""
    source = written(truth, path)
    for chunk in (path / variable).glob("[0-9]*"):
        chunk.write_bytes(b"\x02\x01\x21\x04 damaged beyond repair")
    return source


def test_a_chunk_that_cannot_be_read_names_the_store_and_the_time(
    truth: xr.Dataset, tmp_path: Path
) -> None:
    source = damaged(truth, tmp_path / "bad.zarr", "temperature")
    with pytest.raises(SourceError, match="cannot read the store") as caught:
        read_store(source, CYCLE)
    assert source.address in caught.value.where
    assert CYCLE.label in caught.value.where


def test_times_that_cannot_be_read_are_a_fault_of_the_source(
    truth: xr.Dataset, tmp_path: Path
) -> None:
    source = damaged(truth, tmp_path / "bad.zarr", "time")
    with pytest.raises(SourceError, match=r"cannot (open|read) the store"):
        store_times(source)


def test_after_a_damaged_store_the_next_source_is_asked(
    made_up_air: Atmosphere, tmp_path: Path
) -> None:
    air = channels_to_dataset(
        made_up_air.fields(CYCLE.init_time)[None], {"time": [CYCLE.init_time]}
    )
    good = written(air, tmp_path / "good.zarr")
    intake = take_in(
        CYCLE, [damaged(air, tmp_path / "bad.zarr", "2m_temperature"), good],
        downloads=tmp_path / "downloads", archive=tmp_path / "analyses.zarr",
    )  # fmt: skip
    assert intake.store.sha256 == analysis_digest(air)


def test_the_published_stores_hold_what_their_calendars_say() -> None:
    hres, era5 = WEATHERBENCH
    for store, count in ((hres, 10_268), (era5, 93_544)):
        assert store.first is not None
        assert store.last is not None
        hours = (store.last.datetime - store.first.datetime).total_seconds() / 3600
        assert hours / 6 + 1 == count
        assert store.holds(store.last)
        assert not store.holds(store.last.shift(6))


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with fake_gcs(tmp_path_factory.mktemp("gcs")) as server, server.environment():
        yield server


def test_a_store_on_google_cloud_storage_is_read(gcs: Server, truth: xr.Dataset) -> None:
    """Zarr v2, consolidated, longitude before latitude, through gcsfs from a real server."""
    address = f"{gcs.fresh_root()}/hres.zarr"
    laid_out = LAYOUTS["longitude before latitude"](truth)
    laid_out.to_zarr(address, zarr_format=2, consolidated=True, storage_options={"token": "anon"})
    analysis = read_store(StoreSource("gcs", address), CYCLE)
    assert analysis_digest(analysis) == analysis_digest(truth.isel(time=[1]))
    assert [v.name for v in VARIABLES if v.name not in analysis] == []
