from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr

from ingest.regrid_file import regrid_file
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE

DATA = Path(__file__).parents[1] / "data"
T2M = DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2"
Q150 = DATA / "ifs_oper_20260404_00z_0h_q150_0p25_ccsds.grib2"
LSM = DATA / "ifs_oper_20260404_00z_0h_lsm_0p25_ccsds.grib2"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    path = tmp_path / "three.grib2"
    path.write_bytes(b"".join(p.read_bytes() for p in (T2M, Q150, LSM)))
    return path


def edited(content: bytes, **keys: int) -> bytes:
    handle = eccodes.codes_new_from_message(content)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    result = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return result


def opened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, engine="scipy") as dataset:
        return dataset.load()


def test_every_message_becomes_a_variable(three: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    names = regrid_file(three, tmp_path / "o.nc", progress=lambda *p: steps.append(p))
    assert names == ("2t", "q_150", "lsm")
    assert steps == [(1, 3), (2, 3), (3, 3)]
    result = opened(tmp_path / "o.nc")
    assert set(result.data_vars) == set(names)
    np.testing.assert_array_equal(result["latitude"], LATITUDE)
    np.testing.assert_array_equal(result["longitude"], LONGITUDE)
    for name in names:
        assert result[name].dims == ("latitude", "longitude")
        assert result[name].dtype == np.float32
    assert result["2t"].attrs["units"] == "K"


def test_values_are_cdos(three: Path, tmp_path: Path) -> None:
    regrid_file(three, tmp_path / "o.nc")
    with np.load(DATA / "golden_regrid_1p5deg_lonlat.npz") as golden:
        np.testing.assert_array_equal(opened(tmp_path / "o.nc")["2t"], golden["t2m_cdo"].T)


def test_land_lies_where_the_map_says(three: Path, tmp_path: Path) -> None:
    regrid_file(three, tmp_path / "o.nc")
    land = opened(tmp_path / "o.nc")["lsm"]
    places = {(24, 10.5): 1, (-25.5, 135): 1, (0, 210): 0, (-75, 90): 1, (40.5, 330): 0}
    for (latitude, longitude), value in places.items():
        assert float(land.sel(latitude=latitude, longitude=longitude)) == pytest.approx(
            value, abs=0.01
        )


def test_steps_of_one_field_get_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "steps.grib2"
    later = edited(T2M.read_bytes(), step=6)
    path.write_bytes(T2M.read_bytes() + later + Q150.read_bytes())
    assert regrid_file(path, tmp_path / "o.nc") == ("2t_step0", "2t_step6", "q_150")


def test_members_of_one_field_get_names_of_their_own(tmp_path: Path) -> None:
    path = DATA / "era5_tz_500_850_20070101_12z_1deg.grib"
    assert regrid_file(path, tmp_path / "o.nc") == ("t_500", "z_500", "t_850", "z_850")


def test_a_message_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.grib2"
    path.write_bytes(T2M.read_bytes() * 2)
    with pytest.raises(DataError, match="cannot be told apart: 2t"):
        regrid_file(path, tmp_path / "o.nc")
    assert not (tmp_path / "o.nc").exists()


def test_missing_points_stay_in_their_place_and_are_counted(tmp_path: Path) -> None:
    handle = eccodes.codes_new_from_message(T2M.read_bytes())
    values = eccodes.codes_get_values(handle).reshape(721, 1440)
    values[200:240, 100:160] = 9999.0
    eccodes.codes_set(handle, "missingValue", 9999.0)
    eccodes.codes_set(handle, "bitmapPresent", 1)
    eccodes.codes_set_values(handle, values.ravel())
    (tmp_path / "holes.grib2").write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    regrid_file(tmp_path / "holes.grib2", tmp_path / "o.nc")
    result = opened(tmp_path / "o.nc")["2t"]
    assert result.attrs["missing_source_points"] == 2400
    # 60 columns of 0.25 degree from 205 E and 40 rows south of 40 N: 9 or 10 x 6 or 7 cells.
    assert 9 * 6 <= int(np.isnan(result).sum()) <= 10 * 7
    assert float(result.max()) < 330


def test_damage_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.grib2"
    path.write_bytes(Q150.read_bytes() + T2M.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"cut\.grib2"):
        regrid_file(path, tmp_path / "o.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.grib2"]


def test_a_regional_file_is_refused(tmp_path: Path) -> None:
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    path = tmp_path / "region.grib2"
    path.write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises((InputError, DataError)):
        regrid_file(path, tmp_path / "o.nc")


@pytest.mark.parametrize("target", ["nowhere/o.nc", "."])
def test_a_place_that_cannot_be_written_is_named(target: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write a file here"):
        regrid_file(T2M, tmp_path / target)


def test_the_command(three: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from flows.cli.ingest import regrid; regrid()"]
    done = subprocess.run(
        [*command, str(three), str(tmp_path / "o.nc")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 fields on 240 x 121")
    assert set(opened(tmp_path / "o.nc").data_vars) == {"2t", "q_150", "lsm"}
