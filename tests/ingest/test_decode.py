from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import eccodes
import numpy as np
import pytest

from ingest import ccsds
from ingest.decode import decode, open_message, read_header, read_headers, read_messages
from ingest.index import FieldKey
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.variables import LEVELS

DATA = Path(__file__).parents[1] / "data"
T2M = DATA / "ifs_oper_20260404_00z_0h_2t_0p25_ccsds.grib2"
Q150 = DATA / "ifs_oper_20260404_00z_0h_q150_0p25_ccsds.grib2"
REAL = sorted(DATA.glob("*.grib*"))


def ecocodes_values(path: Path) -> list[np.ndarray]:
    found = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            found.append(eccodes.codes_get_values(handle).astype(np.float32))
            eccodes.codes_release(handle)
    return found


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_every_real_message_is_bit_equal_to_eccodes(path: Path) -> None:
    decoded = [field.values.ravel() for field in read_messages(path)]
    expected = ecocodes_values(path)
    assert len(decoded) == len(expected)
    for ours, theirs in zip(decoded, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_header_and_axes_of_a_real_message() -> None:
    field = next(read_messages(T2M))
    assert field.header.key == FieldKey("2t", "sfc", None)
    assert field.header.valid_time == np.datetime64("2026-04-04T00", "ns")
    assert field.header.grid_md5 == "265781b4edc06425746b46a5775244eb"
    assert (field.latitude[0], field.latitude[-1]) == (90.0, -90.0)
    assert (field.first_longitude, field.longitude[-1]) == (180.0, 539.75)
    # Antarctic plateau is the last row, colder than the Arctic in April.
    assert field.values[-1].mean() < field.values[0].mean()


def test_grib1_and_another_origin_are_read() -> None:
    fields = list(read_messages(DATA / "era5_tz_500_850_20070101_12z_1deg.grib"))
    assert [str(field.header.key) for field in fields] == [
        "t 500 pl",
        "z 500 pl",
        "t 850 pl",
        "z 850 pl",
    ]
    assert fields[0].first_longitude == 0.0
    assert fields[1].header.units == "m**2 s**-2"


def test_a_constant_message_decodes_to_its_constant() -> None:
    precipitation = list(read_messages(DATA / "ifs_oper_20240101_00z_0h_gh250_tp_0p4_ccsds.grib2"))[
        1
    ]
    assert precipitation.values.shape == (451, 900)
    assert (precipitation.values == 0).all()


def edited(content: bytes, change: Callable[[object], None]) -> bytes:
    handle = eccodes.codes_new_from_message(content)
    change(handle)
    result = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return result


def with_bitmap(handle: object) -> None:
    values = eccodes.codes_get_values(handle)
    values[1000:1100] = 9999.0
    eccodes.codes_set(handle, "missingValue", 9999.0)
    eccodes.codes_set(handle, "bitmapPresent", 1)
    eccodes.codes_set_values(handle, values)


def test_points_missing_by_bitmap_are_nan() -> None:
    with open_message(edited(T2M.read_bytes(), with_bitmap), "x") as handle:
        field = decode(handle, "x")
    assert field.missing == 100
    assert np.isnan(field.values.ravel()[1000:1100]).all()
    assert np.nanmax(field.values) < 350


def ieee(handle: object) -> None:
    values = eccodes.codes_get_values(handle)
    values[1000:1100] = 9999.0
    eccodes.codes_set(handle, "packingType", "grid_ieee")
    eccodes.codes_set_values(handle, values)


def test_the_sentinel_is_nan_where_the_field_cannot_reach_it() -> None:
    """grid_ieee keeps 9999 exact, and has no float32 decoder in ecCodes."""
    with open_message(edited(T2M.read_bytes(), ieee), "x") as handle:
        field = decode(handle, "x")
    assert field.missing == 100
    assert field.values.dtype == np.float32


def test_a_height_of_9999_is_a_value() -> None:
    content = (DATA / "ifs_oper_20240101_00z_0h_gh250_tp_0p4_ccsds.grib2").read_bytes()
    with open_message(edited(content[:205483], ieee), "x") as handle:
        field = decode(handle, "x")
    assert field.missing == 0
    assert (field.values == 9999.0).sum() >= 100


DAMAGE = {
    "truncated": lambda a, b: a + b[:-5],
    "half a header": lambda a, b: a + b[:90],
    "trailer": lambda a, b: a[:-4] + b"7776" + b,
    "magic": lambda a, b: b"GRIC" + a[4:] + b,
    "length": lambda a, b: a[:14] + bytes([a[14] ^ 1]) + a[15:] + b,
    "header bytes": lambda a, b: a[:120] + b"\xff" * 40 + a[160:] + b,
    "text between": lambda a, b: a + b"<html>error</html>" + b,
    "empty": lambda *_: b"",
    "text": lambda *_: b"not found",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_with_its_place(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.grib2"
    path.write_bytes(DAMAGE[damage](Q150.read_bytes(), T2M.read_bytes()))
    with pytest.raises(DataError, match=r"damaged\.grib2") as caught:
        list(read_messages(path))
    assert "fetch it again" in caught.value.remedy


def test_zero_padding_between_messages_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "padded.grib2"
    path.write_bytes(Q150.read_bytes() + b"\0" * 96 + T2M.read_bytes() + b"\0" * 8)
    assert len(list(read_headers(path))) == 2


def test_other_grids_are_refused_by_name(tmp_path: Path) -> None:
    handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
    path = tmp_path / "gaussian.grib2"
    path.write_bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    with pytest.raises(DataError, match="reduced_gg"):
        list(read_messages(path))


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_messages(tmp_path / "none.grib2"))


def test_without_libaec_the_library_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [field.values for path in (T2M, Q150) for field in read_messages(path)]
    monkeypatch.setattr(ccsds, "_library", lambda: None)
    for ours, path in zip(plain, (T2M, Q150), strict=True):
        np.testing.assert_array_equal(ours, next(read_messages(path)).values)


def test_flipped_bits_are_refused_or_stay_within_the_range_of_the_packing() -> None:
    """A flip in the low bits of a sample is a legal message: nothing in GRIB can tell it."""
    rng = np.random.default_rng(3)
    sound = Q150.read_bytes()
    highest = next(read_messages(Q150)).values.max() * 4  # 12 bits span a little more
    refused = 0
    for place in rng.integers(200, len(sound) - 4, 60):
        spoilt = bytearray(sound)
        spoilt[place] ^= 1 << int(rng.integers(8))
        try:
            with open_message(bytes(spoilt), "flipped") as handle:
                assert decode(handle, "flipped").values.max() <= highest
        except DataError:
            refused += 1
    assert refused >= 15


@pytest.mark.parametrize("level", LEVELS)
def test_a_remembered_name_is_that_of_every_level(level: int) -> None:
    with open_message(Q150.read_bytes(), "q") as handle:
        eccodes.codes_set(handle, "level", level)
        for number, name in ((0, "q"), (1, "r")):
            eccodes.codes_set(handle, "parameterNumber", number)
            header = read_header(handle)
            assert header.key == FieldKey(name, "pl", level)
            assert header.key.param == eccodes.codes_get(handle, "shortName")
            assert header.units == eccodes.codes_get(handle, "units")


def test_a_level_of_another_kind_has_a_name_of_its_own() -> None:
    with open_message(T2M.read_bytes(), "2t") as handle:
        names = [read_header(handle).key.param]
        for height in (10, 100, 2):
            eccodes.codes_set(handle, "scaledValueOfFirstFixedSurface", height)
            names.append(read_header(handle).key.param)
            assert names[-1] == eccodes.codes_get(handle, "shortName")
    assert names[0] == names[-1] == "2t"
    assert names[1] != "2t"


def test_units_are_left_out_on_request() -> None:
    assert next(read_messages(T2M, units=False)).header.units == ""
    assert next(read_messages(T2M)).header.units == "K"
