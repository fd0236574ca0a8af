from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ingest.archive import analysis_digest, append_analysis
from ingest.user_files import analyses_in, planes_in
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.schema import ANALYSIS, channels_to_dataset

DATA = Path(__file__).parents[1] / "data"
T2M = DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2"


@pytest.fixture
def two_times(make_upload, cycle: Cycle, tmp_path: Path) -> Path:
    path = tmp_path / "mine.grib2"
    uploads = make_upload(cycle), make_upload(cycle.shift(-6))
    for upload in uploads:
        del upload.messages[upload.place("filler")]
    path.write_bytes(b"".join(upload.data() for upload in uploads))
    return path


def test_every_time_of_a_grib_file_is_an_analysis(two_times: Path, cycle: Cycle) -> None:
    found = list(analyses_in(str(two_times)))
    times = [Cycle.from_datetime64(one["time"].values[0]) for one in found]
    assert times == [cycle.shift(-6), cycle]
    assert all(ANALYSIS.faults(one) == [] for one in found)
    assert found[0].attrs["source"] == "mine.grib2"


def test_an_address_of_fsspec_is_read(two_times: Path) -> None:
    local = [analysis_digest(one) for one in analyses_in(str(two_times))]
    remote = [analysis_digest(one) for one in analyses_in(f"file://{two_times}")]
    assert local == remote


def test_an_archive_of_ours_is_a_store_too(tmp_path: Path, cycle: Cycle) -> None:
    planes = np.random.default_rng(0).random((1, 82, 121, 240), np.float32)
    dataset = channels_to_dataset(planes, {"time": [cycle.init_time]})
    append_analysis(tmp_path / "a.zarr", dataset)
    (one,) = analyses_in(str(tmp_path / "a.zarr"))
    assert analysis_digest(one) == analysis_digest(dataset)


def test_an_incomplete_file_names_what_is_missing() -> None:
    with pytest.raises(DataError, match="81 of 82 fields are missing"):
        list(analyses_in(str(T2M)))


def test_a_file_with_nothing_of_use_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="none of the fields") as caught:
        list(analyses_in(str(DATA / "ifs_oper_20260404_00z_0h_lsm_0p25_ccsds.grib2")))
    assert "13 levels" in caught.value.remedy


@pytest.mark.parametrize("address", ["/nowhere/x.grib2", "file:///nowhere/x.grib2"])
def test_a_file_that_is_not_there_is_named(address: str) -> None:
    with pytest.raises(InputError, match=r"nowhere/x\.grib2"):
        list(analyses_in(address))


def test_fields_of_an_odd_hour_are_no_analysis(tmp_path: Path) -> None:
    times = [np.datetime64("2026-11-23T03", "ns")]
    dataset = channels_to_dataset(np.ones((1, 82, 121, 240), np.float32), {"time": times})
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(DataError, match="a time that is no analysis's"):
        list(analyses_in(str(tmp_path / "a.zarr")))


def test_the_fields_of_any_file_can_be_judged() -> None:
    planes = planes_in(str(T2M))
    assert {name: plane.shape for name, plane in planes.items()} == {"2m_temperature": (121, 240)}
    heights = planes_in(str(DATA / "ifs_oper_20240101_00z_0h_gh250_tp_0p4_ccsds.grib2"))
    assert 90e3 < heights["geopotential_250"].mean() < 110e3


def test_fields_of_two_times_are_not_mixed(two_times: Path) -> None:
    with pytest.raises(DataError, match="more than once"):
        planes_in(str(two_times))


def test_planes_of_a_store(tmp_path: Path, cycle: Cycle) -> None:
    planes = np.random.default_rng(0).random((1, 82, 121, 240), np.float32)
    dataset = channels_to_dataset(planes, {"time": [cycle.init_time]})
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    np.testing.assert_array_equal(
        planes_in(str(tmp_path / "a.zarr"))["2m_temperature"], planes[0, 0]
    )
    assert isinstance(dataset, xr.Dataset)
