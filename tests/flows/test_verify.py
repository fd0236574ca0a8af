"""Forecasts are scored from the archive, the record is public, a drift is told once."""

from __future__ import annotations

import datetime as dt
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from flows.cli.main import main
from flows.cli.scores import scores as scores_command
from flows.cli.scores import verify as verify_command
from flows.progress import LogReporter
from flows.settings import Settings
from flows.verify import SCORES, drift_alerts, period_told, scores_markdown, tell_of_drift, verify
from flows.watch.alerts import records
from ingest.archive import append_analysis
from ingest.correction import correct_analysis
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.objects.root import open_root
from postprocess.scores.ledger import read_scores, record
from tests.postprocess.scores.worlds import analysis, publish_forecast

FIRST = Cycle.parse("2026-11-23T00Z")
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three analyses, and forecasts from the first two of them."""
    folder = tmp_path_factory.mktemp("verify")
    settings = Settings(data_root=folder, variant="mini", lead_hours=12)
    for cycle in (FIRST, FIRST.shift(6), FIRST.shift(12)):
        append_analysis(settings.archive, analysis(cycle))
    for cycle in (FIRST, FIRST.shift(6)):
        publish_forecast(settings.published, cycle, folder / cycle.id)
    return settings


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(settings.data_root))
    monkeypatch.setenv("MOSAIC_OPS_VARIANT", "mini")
    monkeypatch.setenv("MOSAIC_OPS_LEAD_HOURS", "12")


def test_every_analysis_scores_what_was_valid_then_and_again_nothing(settings: Settings) -> None:
    first = verify(settings, LogReporter())
    assert [(each.valid, each.forecasts) for each in first.scored if each.forecasts] == [
        (FIRST.shift(6), (FIRST,)),
        (FIRST.shift(12), (FIRST, FIRST.shift(6))),
    ]
    assert first.summary == "3 forecasts scored against 2 analyses"
    assert verify(settings, LogReporter()).summary == "0 forecasts scored against 0 analyses"
    public = pd.read_csv(io.BytesIO(open_root(settings.published).read(SCORES)))
    assert set(public["lead_hours"]) == {6, 12}
    assert {"metric", "value", "region", "units", "count"} <= set(public.columns)


@pytest.fixture
def copied(settings: Settings, tmp_path: Path) -> Settings:
    """The same analyses and forecasts, to be spoilt."""
    for name in ("analyses.zarr", "published"):
        shutil.copytree(settings.data_root / name, tmp_path / name)
    return settings.model_copy(update={"data_root": tmp_path})


def test_a_damaged_analysis_is_told_and_the_others_are_scored(copied: Settings) -> None:
    shutil.rmtree(copied.published + "/scores", ignore_errors=True)
    shutil.rmtree(copied.archive / "2m_temperature" / "c" / "2")
    done = verify(copied, LogReporter())
    assert [each.forecasts for each in done.scored if each.forecasts] == [(FIRST,)]
    assert len(done.faults) == 1
    assert FIRST.shift(12).label in done.faults[0]
    assert drift_alerts(copied) == []


def test_a_corrected_analysis_is_scored_anew(copied: Settings) -> None:
    verify(copied, LogReporter())
    correct_analysis(copied.archive, analysis(FIRST.shift(6)) + 1, "it was too cold")
    done = verify(copied, LogReporter())
    assert [each.forecasts for each in done.scored if each.forecasts] == [
        (FIRST,),  # whose truth it is
        (FIRST.shift(6),),  # which starts from it
    ]
    assert verify(copied, LogReporter()).summary == "0 forecasts scored against 0 analyses"


def test_the_commands_score_and_show(settings: Settings, tmp_path: Path) -> None:
    runner = CliRunner()
    scored = runner.invoke(verify_command, ["--since", FIRST.label], catch_exceptions=False)
    assert scored.exit_code == 0
    assert "forecasts scored against" in scored.output
    names = {"--csv": "all.csv", "--figure": "lines.png", "--card": "card.svg"}
    options = [part for option, name in names.items() for part in (option, str(tmp_path / name))]
    options += ["--field", "wind_speed_850"]
    shown = runner.invoke(scores_command, options, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "spread_skill" in shown.output
    assert all(path.stat().st_size > 1000 for path in map(tmp_path.joinpath, names.values()))


def test_the_scores_say_of_which_days_they_are(settings: Settings) -> None:
    verify(settings, LogReporter())
    root, newest = open_root(settings.published), FIRST.shift(12)
    fresh = period_told(root, newest.datetime + dt.timedelta(hours=24))
    assert fresh == f"analyses from {FIRST.shift(6)} to {newest}"
    late = period_told(root, newest.datetime + dt.timedelta(days=9))
    assert late == f"{fresh}, nothing newer is scored: the last is 9.0 days old"


@pytest.mark.parametrize("option", ["--csv", "--figure", "--card"])
@pytest.mark.parametrize("path", ["/dev/null/out.svg", "/dev/null/further/out.svg", "/sys/out.svg"])
def test_a_path_that_cannot_be_written_is_an_answer(
    option: str,
    path: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verify(settings, LogReporter())
    monkeypatch.setattr(sys, "argv", ["mosaic-ops", "scores", option, path])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == InputError.exit_code
    assert said.startswith(f"error: {path.split('/out')[0]}")
    assert "remedy: name a path where this user may write" in said
    assert "unexpected" not in said


def test_an_unknown_field_or_region_is_named(settings: Settings) -> None:
    verify(settings, LogReporter())
    for option, text in (("--field", "no scores of 'rain'"), ("--region", "unknown region 'rain'")):
        failure = CliRunner().invoke(scores_command, [option, "rain"]).exception
        assert isinstance(failure, InputError)
        assert text in str(failure)


def test_nothing_scored_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_OPS_DATA_ROOT", str(tmp_path))
    failure = CliRunner().invoke(scores_command, []).exception
    assert isinstance(failure, InputError)
    assert "mosaic-ops verify" in str(failure)


def test_a_drift_is_told_once_and_its_end_too(settings: Settings, tmp_path: Path) -> None:
    verify(settings, LogReporter())
    row = read_scores(open_root(settings.published)).query("region == 'global'").iloc[:1]
    alone = settings.model_copy(update={"data_root": tmp_path})
    root = open_root(alone.published)
    draws = np.random.default_rng(0).normal(10, 0.3, 60)

    def score(number: int, crps: float) -> None:
        valid = FIRST.shift(6 * number)
        values = {"lead_hours": 24, "valid_time": valid.init_time, "weight": 1.0, "crps": crps,
                  "init_time": valid.shift(-24).init_time}  # fmt: skip
        record(root, valid, row.assign(**values))

    for number, value in enumerate(draws):
        score(number, float(value))
    assert drift_alerts(alone) == []
    for number in range(60, 64):
        score(number, 15.0)
    assert [alert.subject for alert in tell_of_drift(alone, NOW)] == ["scores"]
    assert tell_of_drift(alone, NOW) == ()
    assert "| 10.3 (1.00) |" in (told := scores_markdown(alone, NOW))
    assert f"at 1.5°: {period_told(root, NOW)}." in told
    for number in range(64, 68):
        score(number, 10.0)
    tell_of_drift(alone, NOW)
    assert [each.over is not None for each in records(alone.alerts)] == [True]
