"""What `demo --again` deletes, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import demo as demonstration
from flows.cli.run import demo
from flows.demo import Demo, forget_results, run_demo
from flows.progress import LogReporter
from mosaic_core.contract.errors import InputError


def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demonstration that is stopped as soon as it has begun."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "make_analyses", stop)
    with pytest.raises(KeyboardInterrupt):
        run_demo(Demo(folder), LogReporter())


def test_only_what_a_demonstration_made_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_results(Demo(tmp_path))
    start(tmp_path, monkeypatch)
    assert (tmp_path / "data").is_dir()
    forget_results(Demo(tmp_path))
    assert not (tmp_path / "data").exists()


def test_the_data_of_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "data" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("ten years")
    with pytest.raises(InputError, match="not made by a demonstration"):
        CliRunner().invoke(demo, ["--output", str(tmp_path), "--again"], catch_exceptions=False)
    start(tmp_path, monkeypatch)
    with pytest.raises(InputError, match="not made by a demonstration"):
        forget_results(Demo(tmp_path))
    assert precious.read_text() == "ten years"
