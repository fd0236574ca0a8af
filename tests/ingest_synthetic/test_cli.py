"""`mosaic-ops synthetic`, with the work itself replaced: tests of the tree are elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.synthetic import synthetic
from ingest.synthetic import tree
from ingest.synthetic.mirror import Mirror
from mosaic_core.contract.cycle import Cycle


def test_make_asks_for_the_history_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Cycle] = []

    def record(file: tree.MirrorFile, cycle: Cycle, recipe: tree.Recipe) -> None:
        asked.append(cycle)
        assert (recipe.seed, recipe.decoys) == (9, "none")
        file.data.parent.mkdir(parents=True)
        file.data.write_bytes(b"GRIB")

    monkeypatch.setattr(tree, "write_file", record)
    arguments = ["make", str(tmp_path), "2026-11-23T00Z", "2026-11-22T18Z", "--history", "2"]
    options = ["--seed", "9", "--decoys", "none", "--workers", "1"]
    result = CliRunner().invoke(synthetic, arguments + options, catch_exceptions=False)
    assert result.exit_code == 0
    assert [cycle.label[5:] for cycle in asked] == ["11-22T12Z", "11-22T18Z", "11-23T00Z"]
    assert "3/3  2026-11-23T00Z" in result.output
    assert "0.0 MB" in result.output


def test_serve_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Mirror, "serve_forever", lambda self: self._server.server_close())
    result = CliRunner().invoke(
        synthetic, ["serve", str(tmp_path), "--port", "0"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "at http://127.0.0.1:" in result.output


@pytest.mark.parametrize("command", [[], ["make"], ["serve"]])
def test_help(command: list[str]):
    result = CliRunner().invoke(synthetic, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
