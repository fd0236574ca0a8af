"""Trees in ECMWF's layout: right names, whole files, no work done twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest.index import parse_index
from ingest.sources import Source, analysis_files
from ingest.synthetic import mutate, tree
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.tree import MirrorFile, Recipe, make_mirror_tree, mirror_file
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import SourceError, StoreError

CYCLE = Cycle.parse("2026-11-23T06Z")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MirrorFile:
    root = tmp_path_factory.mktemp("mirror")
    return make_mirror_tree(root, [CYCLE], seed=3, kind="none", workers=1)[0]


def root_of(file: MirrorFile) -> Path:
    return file.data.parents[5]


@pytest.mark.parametrize(
    ("cycle", "path"),
    [
        ("2026-11-23T06Z", "20261123/06z/ifs/0p25/oper/20261123060000-0h-oper-fc.grib2"),
        ("2026-05-12T00Z", "20260512/00z/ifs/0p25/oper/20260512000000-0h-oper-fc.grib2"),
        ("2025-06-01T18Z", "20250601/18z/ifs/0p25/scda/20250601180000-0h-scda-fc.grib2"),
    ],
)
def test_paths_are_ecmwfs(tmp_path: Path, cycle: str, path: str):
    file = mirror_file(tmp_path, Cycle.parse(cycle))
    assert file.data == tmp_path / path
    assert file.index == (tmp_path / path).with_suffix(".index")


def test_file_is_complete_and_found_by_address(made: MirrorFile):
    rows = parse_index(made.index.read_bytes(), "index")
    assert len({row.key for row in rows}) == len(rows) == 82
    assert rows[-1].end == made.data.stat().st_size
    levels = [row.key.level for row in rows if row.key.param == "t"]
    assert levels != sorted(levels, key=lambda level: level or 0)
    with Mirror(root_of(made)) as mirror:
        location = analysis_files(CYCLE, Source("local", mirror.url))
        assert mirror.find(location.data_url.removeprefix(mirror.url)) is not None
        assert mirror.find(location.index_url.removeprefix(mirror.url)) is not None


def test_second_run_does_nothing_but_report(made: MirrorFile):
    stamps = made.data.stat().st_mtime_ns, made.index.stat().st_mtime_ns
    reports: list[tuple[int, int]] = []
    again = make_mirror_tree(
        root_of(made), [CYCLE], seed=3, kind="none",
        progress=lambda _, done, total: reports.append((done, total)),
    )  # fmt: skip
    assert again == (made,)
    assert (made.data.stat().st_mtime_ns, made.index.stat().st_mtime_ns) == stamps
    assert reports == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: f.index.unlink(),
        lambda f: mutate.truncate(f, 0.9),
        lambda f: mutate.drop_row(f, "t", 500),
        lambda f: tree.recipe_path(f).write_text("{"),
    ],
)
def test_spoilt_files_are_made_anew(
    made: MirrorFile, tmp_path: Path, spoil, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(root_of(made), tmp_path, dirs_exist_ok=True)
    file = mirror_file(tmp_path, CYCLE)
    written: list[Cycle] = []
    monkeypatch.setattr(tree, "write_file", lambda _file, cycle, _recipe: written.append(cycle))
    make_mirror_tree(tmp_path, [CYCLE], seed=3, kind="none")
    assert written == []
    spoil(file)
    make_mirror_tree(tmp_path, [CYCLE], seed=3, kind="none")
    assert written == [CYCLE]


def test_another_recipe_is_another_file(made: MirrorFile, monkeypatch: pytest.MonkeyPatch):
    written: list[Recipe] = []
    monkeypatch.setattr(tree, "write_file", lambda _file, _cycle, recipe: written.append(recipe))
    make_mirror_tree(root_of(made), [CYCLE], seed=4, kind="none")
    make_mirror_tree(root_of(made), [CYCLE], seed=3, kind="light")
    make_mirror_tree(root_of(made), [CYCLE], seed=3, kind="none", steps=(6,))
    assert written == [Recipe(4, "none"), Recipe(3, "light"), Recipe(3, "none", 6)]


def test_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(tree, "write_atomic", fail)
    monkeypatch.setattr(
        tree, "analysis_file", lambda *_: tree.GribFile(tree.Identity(CYCLE, "oper"))
    )
    with pytest.raises(StoreError):
        make_mirror_tree(tmp_path, [CYCLE])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_small_disk_is_noticed_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StoreError, match="are needed"):
        make_mirror_tree(tmp_path, [CYCLE])


def test_cycle_before_every_era(tmp_path: Path):
    with pytest.raises(SourceError, match="begins with"):
        make_mirror_tree(tmp_path, [Cycle.parse("2010-01-01T00Z")])
