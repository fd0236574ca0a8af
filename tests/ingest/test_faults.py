"""Seeded damage through the real path: a mirror over HTTP, fetch, decode, regrid, gate, archive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest.archive import archived_times, provenance
from ingest.gate.reference import Reference
from ingest.gate.verdict import Outcome
from ingest.initial_state import GapPolicy, initial_state
from ingest.intake import Intake, take_in
from ingest.sources import Source
from ingest.synthetic import mutate
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.tree import MirrorFile, make_mirror_tree
from ingest.transfer import TransferPolicy
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError

pytestmark = pytest.mark.e2e

NOW = Cycle.parse("2026-11-23T00Z")
BEFORE = NOW.shift(-6)
POLICY = TransferPolicy(attempts=3, backoff_seconds=0.01, total_seconds=60.0)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with two sound cycles."""
    root = tmp_path_factory.mktemp("sound")
    make_mirror_tree(root, [BEFORE, NOW], workers=1)
    return root


@pytest.fixture(scope="module")
def begun(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, made_up_reference: Reference
) -> Path:
    """An archive that holds the cycle before."""
    folder = tmp_path_factory.mktemp("begun")
    with Mirror(sound) as mirror:
        take(Source("sound", mirror.url), folder, made_up_reference, BEFORE)
    return folder / "analyses.zarr"


def take(source: Source, folder: Path, reference: Reference, cycle: Cycle = NOW) -> Intake:
    return take_in(
        cycle, [source], downloads=folder / "downloads", archive=folder / "analyses.zarr",
        reference=reference, policy=POLICY,
    )  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A copy of the sound tree to spoil, its mirror, and an archive begun."""

    folder: Path
    tree: Path
    source: Source
    reference: Reference

    def file(self, cycle: Cycle) -> MirrorFile:
        (data,) = self.tree.rglob(f"{cycle.datetime:%Y%m%d%H}0000-0h-*.grib2")
        return MirrorFile(cycle, data, data.with_suffix(".index"))

    def take(self) -> Intake:
        return take(self.source, self.folder, self.reference)

    def assert_nothing_came_in(self) -> None:
        assert archived_times(self.folder / "analyses.zarr").size == 1
        folder = self.folder / "downloads" / NOW.id
        assert not (folder / "manifest.json").exists()
        assert not list(folder.glob("*.tmp"))


@pytest.fixture
def stage(
    sound: Path, begun: Path, tmp_path: Path, made_up_reference: Reference
) -> Iterator[Stage]:
    tree = tmp_path / "tree"
    shutil.copytree(sound, tree, copy_function=os.link)
    shutil.copytree(begun, tmp_path / "analyses.zarr")
    with Mirror(tree) as mirror:
        yield Stage(tmp_path, tree, Source("spoilt", mirror.url), made_up_reference)


def test_the_sound_cycle_passes(stage: Stage) -> None:
    intake = stage.take()
    assert intake.verdict is not None
    assert intake.verdict.outcome == "pass", intake.verdict.worst_by_check()
    compared = {f.subject for f in intake.verdict.findings if f.check == "statics"}
    assert compared == {"land_sea_mask", "geopotential_at_surface"}
    assert not intake.verdict.of(Outcome.UNCHECKED)


def test_the_forecast_valid_then_fills_a_gap(stage: Stage, tmp_path: Path) -> None:
    """T-6 is archived, T is not to be had: its 6-h forecast goes into an archive of its own."""
    make_mirror_tree(stage.tree, [BEFORE], steps=[6], workers=1)
    fills = tmp_path / "fills.zarr"
    intake = take_in(
        NOW, [stage.source], downloads=tmp_path / "downloads", archive=tmp_path / "analyses.zarr",
        fills=fills, reference=stage.reference, policy=POLICY,
    )  # fmt: skip
    record = provenance(fills)[NOW.init_time]
    assert (record["cycle"], record["step"]) == (BEFORE.id, 6)
    assert intake.store.address == str(fills)
    assert archived_times(tmp_path / "analyses.zarr").size == 1
    policy = GapPolicy(forecast_fills=1, fill_newest=True)
    state = initial_state(NOW, tmp_path / "analyses.zarr", 2, 6, fills=fills, policy=policy)
    assert state["origin"].values.tolist() == ["analysis", "6-h forecast"]


def test_a_correction_takes_the_analysis_anew(stage: Stage) -> None:
    first = stage.take()
    mutate.change_values(stage.file(NOW), lambda values: values + 0.5, frozenset({"2t"}))
    again = take_in(
        NOW, [stage.source], downloads=stage.folder / "downloads",
        archive=stage.folder / "analyses.zarr", reference=stage.reference, policy=POLICY,
        correct="2 m temperature was half a degree too cold",
    )  # fmt: skip
    assert again.store.sha256 != first.store.sha256
    record = provenance(stage.folder / "analyses.zarr")[NOW.init_time]
    assert record["corrections"][0]["reason"].startswith("2 m temperature")


Spoil = Callable[[Stage], None]


def now(change: Callable[..., None], *args: object) -> Spoil:
    return lambda stage: change(stage.file(NOW), *args)


CAUGHT_BY_THE_GATE: dict[str, tuple[Spoil, str]] = {
    "turned by 180 degrees": (now(mutate.roll_longitude), "longitude phase"),
    "upside down": (now(mutate.flip_latitude), "latitude orientation"),
    "celsius": (now(mutate.kelvin_to_celsius), "range of"),
    "height for geopotential": (now(mutate.height_for_geopotential), "range of geopotential"),
    "levels swapped": (now(mutate.swap_levels, "t", 850, 700), "levels in order of temperature"),
    "winds swapped": (now(mutate.swap_winds), "geostrophic of"),
    "geometric velocity": (
        now(mutate.geometric_velocity), "omega by continuity of"),
    "humidity in grams": (now(mutate.humidity_in_grams), "range of specific_humidity"),
    "constant": (now(mutate.constant_field, "v", 500), "constant of v_component_of_wind_500"),
    "previous cycle, redated": (
        lambda s: mutate.repeat_cycle(s.file(NOW), s.file(BEFORE)), "same as before of"),
    "one field of the cycle before, redated": (
        lambda s: mutate.field_of_another_time(
            s.file(NOW), s.file(BEFORE), "t", 500, redated=True),
        "same as before of temperature_500"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CAUGHT_BY_THE_GATE)
def test_wrong_content_is_refused_by_its_name(fault: str, stage: Stage) -> None:
    spoil, told = CAUGHT_BY_THE_GATE[fault]
    spoil(stage)
    with pytest.raises(DataError, match="the gate refuses") as caught:
        stage.take()
    assert told in caught.value.what
    stage.assert_nothing_came_in()


CAUGHT_BEFORE: dict[str, tuple[Spoil, type[Exception], str]] = {
    "previous cycle as it is": (
        lambda s: mutate.repeat_cycle(s.file(NOW), s.file(BEFORE), redated=False),
        DataError, "the index does not describe this cycle"),
    "one field of another time": (
        lambda s: mutate.field_of_another_time(
            s.file(NOW), s.file(BEFORE), "q", 700, redated=False),
        DataError, "reference time is 2026-11-22T18"),
    "a hole": (now(mutate.missing_block, "t", 500), DataError, "values are missing"),
    "row missing": (now(mutate.drop_row, "u", 250), NotYetAvailable, r"\(u 250 pl\): missing"),
    "field missing": (now(mutate.drop_field, "2t", None), NotYetAvailable, "2m_temperature"),
    "row twice": (now(mutate.duplicate_row, "v", 850), DataError, "850: listed 2 times"),
    "row out of bounds": (
        now(mutate.row_out_of_bounds, "w", 500), NotYetAvailable, "lie outside the file"),
    "rows off by one": (now(mutate.rows_off_by_one), DataError, "not what the index says"),
    "data newer than index": (
        lambda s: mutate.stale_index(s.file(NOW), s.file(BEFORE)), Exception, "not|lie outside"),
    "truncated": (now(mutate.truncate), NotYetAvailable, "lie outside the file"),
    "wrong stream": (now(mutate.wrong_stream), DataError, "stream is enfo, expected oper"),
    "bytes flipped": (
        now(mutate.flip_bytes, "z", 500), DataError, r"\(z 500 pl\): it cannot be decoded"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CAUGHT_BEFORE)
def test_damage_is_refused_by_its_name(fault: str, stage: Stage) -> None:
    spoil, kind, told = CAUGHT_BEFORE[fault]
    spoil(stage)
    with pytest.raises(kind, match=told) as caught:
        stage.take()
    assert isinstance(caught.value, DataError | SourceError)
    stage.assert_nothing_came_in()


def test_the_next_source_is_taken_where_the_first_is_refused(stage: Stage, sound: Path) -> None:
    mutate.kelvin_to_celsius(stage.file(NOW))
    with Mirror(sound) as mirror:
        intake = take_in(
            NOW, [stage.source, Source("sound", mirror.url)],
            downloads=stage.folder / "downloads", archive=stage.folder / "analyses.zarr",
            reference=stage.reference, policy=POLICY,
        )  # fmt: skip
    assert intake.source == "sound"


def test_a_second_intake_does_nothing(stage: Stage) -> None:
    stage.take()
    shutil.rmtree(stage.tree)
    again = stage.take()
    assert again.verdict is None
    assert again.source == "spoilt"
