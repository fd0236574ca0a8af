"""Each seeded fault does what its name says to a real file, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import eccodes
import numpy as np
import pytest

from ingest.index import FieldKey, IndexRow, parse_index
from ingest.synthetic import mutate
from ingest.synthetic.tree import MirrorFile
from mosaic_core.contract.errors import InputError

T500 = FieldKey("t", "pl", 500)


class Contents:
    """Decoded messages of a file by field, and the index as it stands."""

    def __init__(self, file: MirrorFile) -> None:
        self.data = file.data.read_bytes()
        self.rows = parse_index(file.index.read_bytes(), "index")
        self.by_key = {row.key: row for row in self.rows}

    def message(self, key: FieldKey) -> bytes:
        row = self.by_key[key]
        return self.data[row.offset : row.end]

    def read(self, key: FieldKey, *names: str) -> list[str]:
        handle = eccodes.codes_new_from_message(self.message(key))
        found = [eccodes.codes_get_string(handle, name) for name in names]
        eccodes.codes_release(handle)
        return found

    def values(self, key: FieldKey) -> np.ndarray:
        handle = eccodes.codes_new_from_message(self.message(key))
        values = eccodes.codes_get_values(handle)
        eccodes.codes_release(handle)
        return values.reshape(61, 120)


@pytest.fixture
def before(coarse_file: MirrorFile) -> Contents:
    return Contents(coarse_file)


def coherent(found: Contents) -> bool:
    """Whether every row of the index still describes a message."""
    return all(
        found.message(row.key)[:4] == b"GRIB" and found.message(row.key)[-4:] == b"7777"
        for row in found.rows
    )


CHANGES: dict[Callable[[MirrorFile], None], tuple[FieldKey, Callable[[np.ndarray], np.ndarray]]] = {
    mutate.roll_longitude: (T500, lambda v: np.roll(v, 60, axis=1)),
    mutate.flip_latitude: (T500, lambda v: v[::-1]),
    mutate.kelvin_to_celsius: (T500, lambda v: v - 273.15),
    mutate.height_for_geopotential: (FieldKey("z", "pl", 500), lambda v: v / 9.80665),
    mutate.humidity_in_grams: (FieldKey("q", "pl", 700), lambda v: v * 1000),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_change_of_values(
    coarse_file: MirrorFile, before: Contents, change: Callable[[MirrorFile], None]
):
    key, expected = CHANGES[change]
    old = before.values(key)
    change(coarse_file)
    after = Contents(coarse_file)
    np.testing.assert_allclose(after.values(key), expected(old), atol=np.ptp(expected(old)) / 2000)
    assert coherent(after)
    soil = FieldKey("sot", "sol", 1)
    np.testing.assert_array_equal(after.values(soil), before.values(soil))


def test_ground_geopotential_is_scaled_with_the_rest(coarse_file: MirrorFile):
    mutate.height_for_geopotential(coarse_file)
    assert Contents(coarse_file).values(FieldKey("z", "sfc", None)).max() < 8000


def test_geometric_velocity(coarse_file: MirrorFile, before: Contents):
    key = FieldKey("w", "pl", 500)
    mutate.geometric_velocity(coarse_file)
    after = Contents(coarse_file).values(key)
    old = before.values(key)
    assert np.corrcoef(after.ravel(), old.ravel())[0, 1] < -0.99
    assert 0.05 < after.std() / old.std() < 0.3


def test_constant_field(coarse_file: MirrorFile):
    mutate.constant_field(coarse_file, "t", 500)
    found = Contents(coarse_file)
    assert np.ptp(found.values(T500)) == 0
    assert np.ptp(found.values(FieldKey("t", "pl", 400))) > 0


def test_missing_block(coarse_file: MirrorFile):
    mutate.missing_block(coarse_file, "t", 500)
    found = Contents(coarse_file)
    assert found.read(T500, "bitmapPresent", "numberOfMissing") == ["1", str(6 * 12)]
    assert (found.values(T500) == 9999).sum() == 72


def test_swapped_levels(coarse_file: MirrorFile, before: Contents):
    mutate.swap_levels(coarse_file, "t", 500, 850)
    after = Contents(coarse_file)
    old = before.values(FieldKey("t", "pl", 850))
    np.testing.assert_allclose(after.values(T500), old, atol=0.05)
    assert after.read(T500, "level") == ["500"]


def test_swapped_winds(coarse_file: MirrorFile, before: Contents):
    mutate.swap_winds(coarse_file)
    after = Contents(coarse_file)
    for one, other in (("u", "v"), ("v", "u")):
        old = before.values(FieldKey(other, "pl", 250))
        np.testing.assert_allclose(after.values(FieldKey(one, "pl", 250)), old, atol=0.1)
    old = before.values(FieldKey("10v", "sfc", None))
    np.testing.assert_allclose(after.values(FieldKey("10u", "sfc", None)), old, atol=0.1)


@pytest.mark.parametrize(("redated", "hour"), [(True, "0600"), (False, "0000")])
def test_repeated_cycle(coarse_file: MirrorFile, older_file: MirrorFile, redated: bool, hour: str):
    mutate.repeat_cycle(coarse_file, older_file, redated=redated)
    after = Contents(coarse_file)
    np.testing.assert_array_equal(after.values(T500), Contents(older_file).values(T500))
    assert after.read(T500, "dataTime") == [hour]
    assert after.by_key[T500].hour == int(hour) // 100


@pytest.mark.parametrize(("redated", "hour"), [(True, "0600"), (False, "0000")])
def test_field_of_another_time(
    coarse_file: MirrorFile, older_file: MirrorFile, before: Contents, redated: bool, hour: str
):
    mutate.field_of_another_time(coarse_file, older_file, "t", 500, redated=redated)
    after = Contents(coarse_file)
    np.testing.assert_array_equal(after.values(T500), Contents(older_file).values(T500))
    assert after.read(T500, "dataTime") == [hour]
    assert after.by_key[T500].hour == 6
    other = FieldKey("t", "pl", 400)
    assert after.message(other) == before.message(other)


def test_wrong_stream(coarse_file: MirrorFile):
    mutate.wrong_stream(coarse_file)
    found = Contents(coarse_file)
    assert found.read(T500, "stream") == ["enfo"]
    assert {row.stream for row in found.rows} == {"enfo"}


def test_flipped_bytes(coarse_file: MirrorFile, before: Contents):
    mutate.flip_bytes(coarse_file, "t", 500)
    after = Contents(coarse_file)
    old, new = before.message(T500), after.message(T500)
    assert len(old) == len(new)
    assert sum(a != b for a, b in zip(old, new, strict=True)) == 8
    assert coherent(after)


def test_truncated(coarse_file: MirrorFile, before: Contents):
    mutate.truncate(coarse_file, 0.5)
    assert coarse_file.data.read_bytes() == before.data[: len(before.data) // 2]
    assert Contents(coarse_file).rows == before.rows


def test_dropped_field(coarse_file: MirrorFile, before: Contents):
    mutate.drop_field(coarse_file, "t", 500)
    after = Contents(coarse_file)
    assert set(before.by_key) - set(after.by_key) == {T500}
    assert len(after.data) == len(before.data) - before.by_key[T500].length
    assert coherent(after)


def index_faults() -> dict[str, tuple[Callable[[MirrorFile], None], Callable[..., bool]]]:
    def rows(found: Contents) -> list[IndexRow]:
        return [row for row in found.rows if row.key == T500]

    return {
        "missing": (lambda f: mutate.drop_row(f, "t", 500), lambda a, _: not rows(a)),
        "twice": (lambda f: mutate.duplicate_row(f, "t", 500), lambda a, _: len(rows(a)) == 2),
        "outside": (
            lambda f: mutate.row_out_of_bounds(f, "t", 500),
            lambda a, _: rows(a)[0].offset > len(a.data),
        ),
        "shifted": (
            mutate.rows_off_by_one,
            lambda a, b: (
                rows(a)[0].offset == rows(b)[0].end
                and sorted(r.offset for r in a.rows) == sorted(r.offset for r in b.rows)
            ),
        ),
    }


@pytest.mark.parametrize("name", index_faults())
def test_index_faults_leave_the_data_alone(coarse_file: MirrorFile, before: Contents, name: str):
    change, holds = index_faults()[name]
    change(coarse_file)
    after = Contents(coarse_file)
    assert after.data == before.data
    assert holds(after, before)


def test_stale_index(coarse_file: MirrorFile, older_file: MirrorFile, before: Contents):
    mutate.stale_index(coarse_file, older_file)
    after = Contents(coarse_file)
    assert after.data == before.data
    stale = Contents(older_file)
    assert [row.offset for row in after.rows] == [row.offset for row in stale.rows]
    assert {row.hour for row in after.rows} == {6}


def test_no_such_field(coarse_file: MirrorFile, before: Contents):
    with pytest.raises(InputError, match="no field t at 7"):
        mutate.drop_row(coarse_file, "t", 7)
    assert coarse_file.data.read_bytes() == before.data
