"""GRIB of other forms: editions, packings, grids and orders of points, and which reader took it."""

from __future__ import annotations

from pathlib import Path

import eccodes
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from flows.cli.ingest import ingest
from ingest.archive import provenance
from ingest.regrid import ConservativeRegridder
from ingest.regrid_file import regrid_file
from ingest.synthetic.atmosphere import Atmosphere
from ingest.user_files import analyses_in
from ingest.user_grib import CFGRIB, ECCODES, reader_of
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import dataset_to_channels
from mosaic_core.contract.variables import CHANNELS, Channel

DATA = Path(__file__).parents[1] / "data"
T2M = DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2"


def edited(content: bytes, values: np.ndarray | None = None, **keys: int | str) -> bytes:
    handle = eccodes.codes_new_from_message(content)
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    if values is not None:
        eccodes.codes_set_values(handle, np.ascontiguousarray(values, np.float64).ravel())
    result = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return result


def read(content: bytes) -> np.ndarray:
    handle = eccodes.codes_new_from_message(content)
    values = eccodes.codes_get_values(handle)
    eccodes.codes_release(handle)
    return values


def on_gaussian_grid(channel: Channel, field: xr.DataArray, cycle: Cycle, edition: int) -> bytes:
    """One message on the full Gaussian grid N32, simple packing, 16 bits."""
    place = "sfc" if channel.level_hpa is None else "pl"
    handle = eccodes.codes_grib_new_from_samples(f"regular_gg_{place}_grib{edition}")
    rows = eccodes.codes_get_array(handle, "distinctLatitudes")
    columns = np.arange(128) * 2.8125
    if edition == 2:
        eccodes.codes_set(handle, "tablesVersion", 32)
    keys = {
        "dataDate": int(f"{cycle.datetime:%Y%m%d}"), "dataTime": cycle.datetime.hour * 100,
        "shortName": channel.variable.params[0], "bitsPerValue": 16,
    }  # fmt: skip
    if channel.level_hpa is not None:
        keys |= {"level": channel.level_hpa}
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    values = field.interp(latitude=rows, longitude=columns).transpose("latitude", "longitude")
    eccodes.codes_set_values(handle, values.values.astype(np.float64).ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


@pytest.fixture(scope="module", params=[1, 2])
def gaussian(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    made_up_air: Atmosphere,
) -> Path:  # fmt: skip
    """All 82 fields of one time on a Gaussian grid, in GRIB 1 and in GRIB 2."""
    cycle = Cycle.parse("2026-11-23T00Z")
    planes = made_up_air.fields(cycle.init_time)
    coords = {"latitude": LATITUDE, "longitude": LONGITUDE}
    path = tmp_path_factory.mktemp("gaussian") / f"mine.grib{request.param}"
    path.write_bytes(
        b"".join(
            on_gaussian_grid(channel, xr.DataArray(plane, coords), cycle, request.param)
            for channel, plane in zip(CHANNELS, planes, strict=True)
        )
    )
    return path


def test_a_gaussian_grid_comes_in_through_cfgrib(gaussian: Path, made_up_air: Atmosphere) -> None:
    (analysis,) = analyses_in(str(gaussian))
    assert analysis.attrs["reader"] == "cfgrib"
    truth = made_up_air.fields(analysis["time"].values[0])
    found = dataset_to_channels(analysis)[0]
    for index, channel in enumerate(CHANNELS):
        apart = np.sqrt(((found[index] - truth[index]) ** 2).mean()) / truth[index].std()
        assert apart < 0.75, channel.name  # omega is smaller than these cells
        if channel.variable.name == "temperature":
            assert apart < 0.05, channel.name


def test_the_command_says_which_reader_and_keeps_it(gaussian: Path, tmp_path: Path) -> None:
    words = ["files", str(gaussian), "--data-root", str(tmp_path)]
    done = CliRunner().invoke(ingest, words, catch_exceptions=False)
    assert "2026-11-23T00Z" in done.output
    assert "(read with cfgrib): gate" in done.output
    (record,) = provenance(tmp_path / "analyses.zarr").values()
    assert record["reader"] == "cfgrib"
    assert record["gate"]["findings"]


def test_values_that_the_gate_refuses_do_not_come_in(gaussian: Path, tmp_path: Path) -> None:
    with gaussian.open("rb") as file:
        first = eccodes.codes_grib_new_from_file(file)
        size = eccodes.codes_get(first, "totalLength")
        eccodes.codes_release(first)
    content = gaussian.read_bytes()
    celsius = edited(content[:size], read(content[:size]) - 273.15)
    (tmp_path / "wrong.grib").write_bytes(celsius + content[size:])
    words = ["files", str(tmp_path / "wrong.grib"), "--data-root", str(tmp_path)]
    with pytest.raises(DataError, match="range of 2m_temperature"):
        CliRunner().invoke(ingest, words, catch_exceptions=False)


def test_both_readers_give_the_same_bits() -> None:
    path = DATA / "era5_tz_500_850_20070101_12z_1deg.grib"
    assert reader_of(path) is ECCODES
    fields = [
        {str(f.header.key): f for f in reader.messages(path, lambda _: True)}
        for reader in (ECCODES, CFGRIB)
    ]
    assert fields[0].keys() == fields[1].keys()
    for name, ours in fields[0].items():
        theirs = fields[1][name]
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_allclose(ours.latitude, theirs.latitude, atol=1e-9)
        np.testing.assert_allclose(ours.longitude, theirs.longitude, atol=1e-9)
        assert ours.header.valid_time == theirs.header.valid_time
        assert ours.header.units == theirs.header.units


@pytest.mark.parametrize("packing", ["grid_simple", "grid_complex", "grid_second_order"])
def test_other_packings_need_no_other_reader(packing: str, tmp_path: Path) -> None:
    path = tmp_path / "packed.grib2"
    path.write_bytes(edited(T2M.read_bytes(), read(T2M.read_bytes()), packingType=packing))
    reader = reader_of(path)
    assert reader is ECCODES
    (field,) = reader.messages(path, lambda _: True)
    np.testing.assert_array_equal(field.values.ravel(), read(path.read_bytes()).astype(np.float32))


def test_rows_to_and_fro_are_put_in_order(tmp_path: Path) -> None:
    values = read(T2M.read_bytes()).reshape(721, 1440)
    turned = values.copy()
    turned[1::2] = turned[1::2, ::-1]
    path = tmp_path / "boustrophedon.grib2"
    path.write_bytes(edited(T2M.read_bytes(), turned, alternativeRowScanning=1))
    assert regrid_file(path, tmp_path / "o.nc") == ("2t",)
    with xr.open_dataset(tmp_path / "o.nc", engine="scipy") as result:
        regridder = ConservativeRegridder(np.linspace(90, -90, 721), 180 + 0.25 * np.arange(1440))
        np.testing.assert_allclose(result["2t"], regridder(values), atol=1e-4)
        assert result.attrs["reader"] == "cfgrib"


def test_columns_are_not_taken_for_rows(tmp_path: Path) -> None:
    path = tmp_path / "columns.grib2"
    path.write_bytes(edited(T2M.read_bytes(), jPointsAreConsecutive=1))
    with pytest.raises(DataError, match=r"columns\.grib2 \(2t\): grid regular_ll in this order"):
        regrid_file(path, tmp_path / "o.nc")
    assert not (tmp_path / "o.nc").exists()


def test_a_reduced_grid_is_refused_by_name(tmp_path: Path) -> None:
    handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
    path = tmp_path / "reduced.grib2"
    path.write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(DataError, match="grid reduced_gg"):
        regrid_file(path, tmp_path / "o.nc")
