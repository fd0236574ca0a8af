from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ingest.index import ByteRange, FieldKey, choose_params, inventory, merge_ranges, parse_index
from ingest.sources import AnalysisLocation, analysis_files, source_named
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable
from mosaic_core.contract.variables import CHANNELS

DATA = Path(__file__).parents[1] / "data"
REAL = (DATA / "ecmwf_ifs_oper_20260730_12z_72h.index").read_bytes()
LOCATION = analysis_files(Cycle.parse("2026-07-30T12Z"), source_named("aws"), step=72)
SIZE = 142_844_080


def take(content: bytes, location: AnalysisLocation = LOCATION, size: int = SIZE) -> dict:
    return inventory(parse_index(content, "x.index"), location, size)


def edited(change) -> bytes:
    """The real index with `change(rows)` applied to its rows."""
    rows = [json.loads(line) for line in REAL.splitlines()]
    return b"\n".join(json.dumps(row).encode() for row in change(rows))


def is_t500(row: dict) -> bool:
    return (row["param"], row.get("levelist")) == ("t", "500")


def test_the_real_index_holds_the_82_fields_once() -> None:
    rows = take(REAL)
    assert list(rows) == [channel.name for channel in CHANNELS]
    assert rows["geopotential_500"].key == FieldKey("z", "pl", 500)
    assert rows["2m_temperature"].key == FieldKey("2t", "sfc", None)
    assert len({row.offset for row in rows.values()}) == 82


def test_its_bytes_are_as_measured() -> None:
    rows = take(REAL).values()
    apart, merged = merge_ranges(rows, 0), merge_ranges(rows, 500_000)
    assert (len(apart), round(sum(span.length for span in apart) / 1e6, 1)) == (24, 63.9)
    assert (len(merged), round(sum(span.length for span in merged) / 1e6, 1)) == (20, 65.4)


def test_height_is_taken_where_geopotential_is_not_complete() -> None:
    def without_one_z(rows: list[dict]) -> list[dict]:
        return [r for r in rows if (r["param"], r.get("levelist")) != ("z", "850")]

    rows = take(edited(without_one_z))
    assert {rows[f"geopotential_{level}"].key.param for level in (50, 500, 850)} == {"gh"}


def test_neither_complete_reports_the_missing_level() -> None:
    def holes(rows: list[dict]) -> list[dict]:
        gone = [("z", "850"), ("z", "50"), ("gh", "850")]
        return [r for r in rows if (r["param"], r.get("levelist")) not in gone]

    with pytest.raises(NotYetAvailable, match=r"1 of 82 .*geopotential_850 \(gh 850 pl\): missing"):
        take(edited(holes))


def test_missing_field_is_not_yet() -> None:
    with pytest.raises(NotYetAvailable, match=r"temperature_500 \(t 500 pl\): missing"):
        take(edited(lambda rows: [r for r in rows if not is_t500(r)]))


def test_a_row_on_another_level_type_does_not_count() -> None:
    def as_model_level(rows: list[dict]) -> list[dict]:
        return [r | {"levtype": "ml"} if is_t500(r) else r for r in rows]

    with pytest.raises(NotYetAvailable, match="temperature_500"):
        take(edited(as_model_level))


def test_doubled_row_is_refused() -> None:
    with pytest.raises(DataError, match="temperature_500: listed 2 times"):
        take(edited(lambda rows: rows + [r for r in rows if is_t500(r)]))


def test_range_outside_the_file_is_not_yet() -> None:
    with pytest.raises(NotYetAvailable, match="lie outside the file of 100000000 bytes"):
        take(REAL, size=100_000_000)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("date", "20260729", "date is 20260729, expected 20260730"),
        ("time", "0000", "hour is 0, expected 12"),
        ("stream", "scda", "stream is scda, expected oper"),
        ("class", "ai", "class is ai, expected od"),
        ("step", "0", "step is 0, expected 72"),
    ],
)
def test_a_row_of_something_else_is_refused(key: str, value: str, told: str) -> None:
    with pytest.raises(DataError, match=f"temperature_500: {told}"):
        take(edited(lambda rows: [r | {key: value} if is_t500(r) else r for r in rows]))


def test_another_models_index_is_refused() -> None:
    content = (DATA / "aifs_single_20250301_00z_0h.index").read_bytes()
    location = analysis_files(Cycle.parse("2025-03-01T00Z"), source_named("aws"))
    with pytest.raises(DataError, match="class is ai, expected od"):
        inventory(parse_index(content, "x"), location, 10**9)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"param": "t"}', b"<html>busy</html>", b"\xff"])
def test_an_unreadable_line_is_named(line: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.index line 185"):
        parse_index(REAL.rstrip() + b"\n" + line, "x.index")


def test_soil_levels_are_not_taken_for_pressure_levels() -> None:
    keys = [FieldKey("t", "sol", 50), FieldKey("gh", "pl", 50)]
    assert choose_params(keys)["geopotential"] == "gh"
    assert FieldKey("t", "sol", 50) != FieldKey("t", "pl", 50)


def test_merging_joins_neighbours_and_keeps_the_rest_apart() -> None:
    rows = list(take(REAL).values())
    spans = merge_ranges(rows, 0)
    assert all(a.end < b.start for a, b in pairwise(spans))
    for row in rows:
        assert sum(s.start <= row.offset and row.end <= s.end for s in spans) == 1
    assert ByteRange(5, 9).header == "bytes=5-8"
