"""Settings come from options, environment, TOML and defaults, in that order; unknown keys fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import load_settings
from mosaic_core.contract.errors import InputError


def test_defaults_are_the_operational_run() -> None:
    settings = load_settings()
    assert (settings.variant, settings.members, settings.steps) == ("hres", 24, 40)
    assert settings.archive == Path("mosaic-data/analyses.zarr")


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ops.toml"
    config.write_text('members = 4\nlead_hours = 48\nvariant = "era5"\nmirrors = ["aws"]\n')
    monkeypatch.setenv("MOSAIC_OPS_MEMBERS", "6")
    monkeypatch.setenv("MOSAIC_OPS_MIRRORS", "google,aws")
    settings = load_settings(config, lead_hours=24, variant=None)
    assert settings.members == 6
    assert settings.lead_hours == 24
    assert settings.variant == "era5"
    assert settings.mirrors == ("google", "aws")


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ops.toml"
    config.write_text("members = 5\n")
    monkeypatch.setenv("MOSAIC_OPS_CONFIG", str(config))
    assert load_settings().members == 5


def test_every_fault_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ops.toml"
    config.write_text('membres = 4\nvariant = "gfs"\n')
    monkeypatch.setenv("MOSAIC_OPS_LEAD_HOURS", "soon")
    with pytest.raises(InputError) as caught:
        load_settings(config, members=1000)
    text = str(caught.value)
    for expected in ("membres", "unknown variant 'gfs'", "lead_hours", "members", str(config)):
        assert expected in text


def test_an_unknown_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_OPS_MEMBRES", "24")
    with pytest.raises(InputError, match="membres"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot read"), ("members = ", "not valid TOML")]
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    config = tmp_path / "ops.toml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        load_settings(config)
    assert str(config) in str(caught.value)
