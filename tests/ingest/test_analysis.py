from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.analysis import analysis_from_fields, build_analysis
from ingest.decode import Field, decode, open_message
from ingest.fetch import fetch_analysis
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import ANALYSIS
from mosaic_core.contract.variables import CHANNELS

TIME = np.datetime64("2026-04-04T00", "ns")


@pytest.fixture(scope="module")
def fields(messages: dict[str, bytes]) -> list[Field]:
    """The 82 decoded messages of 2026-04-04T00Z in the model's order."""
    found = []
    for content in messages.values():
        with open_message(content, "made") as handle:
            found.append(decode(handle, "made"))
    return found


def at(channel: str) -> int:
    return next(i for i, entry in enumerate(CHANNELS) if entry.name == channel)


def test_from_http_to_the_models_grid(cycle, mirror, make_upload, tmp_path, policy) -> None:
    mirror.serve(make_upload(cycle))
    manifest = fetch_analysis(cycle, mirror.source, tmp_path, policy=policy)
    analysis = build_analysis(manifest, tmp_path)
    assert ANALYSIS.faults(analysis) == []
    assert analysis["time"].values.tolist() == [cycle.init_time.astype("datetime64[ns]").item()]
    assert analysis.attrs["source"] == "test"
    assert analysis.attrs["grib_sha256"] == manifest.files[0].sha256


def test_orientation_and_origin_come_out_right(fields: list[Field]) -> None:
    """The made fields grow northward and are higher within 90 degrees of 40 E."""
    analysis = analysis_from_fields(fields, TIME, "made")
    for channel in CHANNELS:
        plane = analysis[channel.variable.name].isel(time=0)
        if channel.level_hpa is not None:
            plane = plane.sel(level=channel.level_hpa)
        assert plane.sel(latitude=60).mean() > plane.sel(latitude=-60).mean(), channel.name
        assert plane.sel(longitude=40.5).mean() > plane.sel(longitude=220.5).mean(), channel.name


def test_height_becomes_geopotential(fields: list[Field]) -> None:
    analysis = analysis_from_fields(fields, TIME, "made")
    entry = CHANNELS[at("geopotential_500")]
    height = fields[at("geopotential_500")]
    assert height.header.units == "gpm"
    found = analysis["geopotential"].sel(level=500).values
    assert entry.minimum < found.min() < found.max() < entry.maximum
    weight = np.cos(np.deg2rad(LATITUDE))[:, None] * np.ones(LONGITUDE.size)
    source_weight = np.cos(np.deg2rad(height.latitude))[:, None] * np.ones(1440)
    expected = np.average(height.values * 9.80665, weights=source_weight)
    assert np.average(found[0], weights=weight) == pytest.approx(expected, rel=1e-4)


def test_fields_nobody_wants_are_passed_over(fields: list[Field]) -> None:
    header = dataclasses.replace(
        fields[0].header, key=dataclasses.replace(fields[0].header.key, param="skt")
    )
    extra = dataclasses.replace(fields[0], header=header)
    analysis_from_fields([extra, *fields, extra], TIME, "made")


def with_change(fields: list[Field], channel: str, **changes: object) -> Iterator[Field]:
    for index, field in enumerate(fields):
        if index == at(channel):
            yield dataclasses.replace(field, header=dataclasses.replace(field.header, **changes))
        else:
            yield field


def test_a_missing_field_is_named(fields: list[Field]) -> None:
    rest = [field for index, field in enumerate(fields) if index != at("temperature_850")]
    with pytest.raises(DataError, match="1 of 82 fields are missing: temperature_850"):
        analysis_from_fields(rest, TIME, "made")


def test_a_doubled_field_is_named(fields: list[Field]) -> None:
    with pytest.raises(DataError, match="t 850 pl is there twice"):
        analysis_from_fields([*fields, fields[at("temperature_850")]], TIME, "made")


def test_wrong_units_are_named(fields: list[Field]) -> None:
    changed = with_change(fields, "temperature_850", units="Celsius")
    with pytest.raises(DataError, match=r"temperature_850: units are Celsius, expected K"):
        analysis_from_fields(changed, TIME, "made")


def test_a_field_of_another_time_is_named(fields: list[Field]) -> None:
    changed = with_change(fields, "temperature_850", valid_time=TIME - np.timedelta64(6, "h"))
    with pytest.raises(DataError, match=r"temperature_850: valid at 2026-04-03T18"):
        analysis_from_fields(changed, TIME, "made")


def test_a_wrong_level_type_leaves_the_field_missing(fields: list[Field]) -> None:
    key = dataclasses.replace(fields[at("temperature_850")].header.key, levtype="ml")
    changed = with_change(fields, "temperature_850", key=key)
    with pytest.raises(DataError, match="missing: temperature_850"):
        analysis_from_fields(changed, TIME, "made")


def test_missing_points_are_named_not_averaged_away(fields: list[Field]) -> None:
    values = fields[0].values.copy()
    values[300:310, 50:60] = np.nan
    spoiled = dataclasses.replace(fields[0], values=values, missing=100)
    with pytest.raises(DataError, match="2m_temperature: 100 of 1038240 values are missing"):
        analysis_from_fields([spoiled, *fields[1:]], TIME, "made")


def test_infinite_values_are_refused(fields: list[Field]) -> None:
    values = fields[0].values.copy()
    values[300, 50] = np.inf
    spoiled = dataclasses.replace(fields[0], values=values)
    with pytest.raises(DataError, match="not finite in 2m_temperature"):
        analysis_from_fields([spoiled, *fields[1:]], TIME, "made")


def test_a_damaged_file_names_the_file(tmp_path: Path, messages: dict[str, bytes]) -> None:
    from ingest.decode import read_messages

    path = tmp_path / "analysis.grib2"
    path.write_bytes(b"".join(messages.values())[:-100])
    with pytest.raises(DataError, match=r"analysis\.grib2 after byte"):
        analysis_from_fields(read_messages(path), TIME, str(path))
