"""The commands as a person types them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner, Result

from flows.cli import publishing
from flows.settings import load_settings
from flows.watch.retention import free_space
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError, StoreError
from postprocess.publish import publish

OLD = Cycle.parse("2020-01-01T00Z")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for cycle in (OLD, OLD.shift(6)):
        staged = tiny.stage(tmp_path / cycle.id, cycle)
        then = cycle.datetime + timedelta(hours=8)
        root = tmp_path / "root"
        publish(staged, root, cycle=cycle, run_id="run-1", now=lambda then=then: then)
    return tmp_path / "root"


def run(command: object, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_catalog_lists_the_newest_first(root: Path) -> None:
    first, second = run(publishing.catalog, root).output.splitlines()
    assert first.startswith("* 2020-01-01T06Z")
    assert second.startswith("  2020-01-01T00Z")
    assert "2 members" in first
    assert "forecast.zarr" in first
    assert '"cycles"' in run(publishing.catalog, root, "--json").output


def test_the_published_root_of_the_settings_is_the_default(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSAIC_OPS_PUBLISHED_ROOT", str(root))
    assert "2020-01-01T06Z" in run(publishing.catalog).output
    assert "all as published" in run(publishing.verify_store).output
    missing = ("2020-01-01T06Z", "--members", "1")
    with pytest.raises(PublishError, match="without its initial state"):
        run(publishing.rebuild, *missing)


def test_catalog_of_nothing_says_so(tmp_path: Path) -> None:
    assert "nothing is published" in run(publishing.catalog, tmp_path).output


def test_a_file_is_no_published_root(root: Path) -> None:
    page = root / f"cycles/{OLD.id}/run-1/forecast.zarr/zarr.json"
    for place in (page, page / "below"):
        with pytest.raises(InputError, match="this is a file"):
            run(publishing.catalog, place)


@pytest.mark.parametrize(("command", "option"), [("catalog", "--rebuild"), ("retain", "--dry-run")])
def test_what_is_not_there_is_not_made(tmp_path: Path, command: str, option: str) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="no such folder"):
        run(getattr(publishing, command), nowhere, option)
    assert not nowhere.exists()


def test_catalog_rebuild_repairs_pointer_and_index(root: Path) -> None:
    good = (root / "index.json").read_bytes()
    (root / "index.json").write_text("{}")
    (root / "latest.json").write_text("{}")
    run(publishing.catalog, root, "--rebuild")
    assert (root / "index.json").read_bytes() == good
    assert "all as published" in run(publishing.verify_store, root).output


def test_verify_store_takes_one_file_of_a_run(root: Path) -> None:
    tracks = root / f"cycles/{OLD.id}/run-1/cyclones.geojson"
    for place in (tracks, f"file://{tracks}"):
        assert run(publishing.verify_store, place).output.startswith("1 objects")


def test_verify_store_names_what_is_wrong(root: Path) -> None:
    (root / f"cycles/{OLD.id}/run-1/forecast.zarr/latitude/c.0").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"1 of \d+ objects is not what"):
        run(publishing.verify_store, root)
    result = CliRunner().invoke(publishing.verify_store, [str(root)])
    assert f"cycles/{OLD.id}/run-1/forecast.zarr/latitude/c.0: has 1 bytes" in result.output


def test_retain_says_what_goes_and_then_does_it(root: Path) -> None:
    arguments = (root, "--keep", "forecast=10d", "--grace-hours", 0)
    told = run(publishing.retain, *arguments, "--dry-run").output
    assert "announce" in told
    assert "older than 10 days" in told
    assert "would be freed; 2 stores of" in told
    assert "would be announced" in told
    run(publishing.retain, *arguments)
    assert "delete" in run(publishing.retain, *arguments).output
    assert not (root / f"cycles/{OLD.id}/run-1/forecast.zarr").exists()
    with pytest.raises(InputError, match="retention rule"):
        run(publishing.retain, root, "--keep", "forecast")


def test_daily_retention_goes_by_the_rules_of_the_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSAIC_OPS_PUBLISHED_ROOT", str(root))
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(root.parent / "data"))
    now = datetime.now(UTC)
    monkeypatch.setenv("MOSAIC_OPS_KEEP_PUBLISHED", "forecast= ensemble= other=")
    assert free_space(load_settings(), now, dry_run=True).published == ()
    monkeypatch.setenv("MOSAIC_OPS_KEEP_PUBLISHED", "forecast=1n ensemble= other=")
    (removal,) = free_space(load_settings(), now, dry_run=True).published
    assert removal.what == f"cycles/{OLD.id}/run-1/forecast.zarr"
    assert removal.what in run(publishing.retain, "--dry-run").output
    assert removal.what not in run(publishing.retain, "--dry-run", "--keep", "forecast=").output


def test_templates_are_what_the_code_makes() -> None:
    assert "are what the code makes" in run(publishing.templates).output
