"""Settings come from options, environment, TOML and defaults, in that order; unknown keys fail."""

from __future__ import annotations

import re
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


PRODUCTS = """
[products]
spectra_levels = [500]
spectra_scalars = ["temperature_500"]
tracker_version = "1"

[[products.stations]]
name = "Tromsø"
latitude = 69.65
longitude = 18.96

[[products.events]]
variable = "wind_speed"
level_hpa = 850
side = "above"
values = [40.0]
units = "kt"
"""


def test_products_are_a_table_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ops.toml"
    config.write_text(PRODUCTS)
    asked = load_settings(config).products
    assert asked.spectra_levels == (500,)
    assert [station.name for station in asked.stations] == ["Tromsø"]
    assert [event.name for event in asked.events] == ["wind_speed_850_above"]
    assert asked.quantiles == (0.1, 0.25, 0.5, 0.75, 0.9)
    monkeypatch.setenv("MOSAIC_OPS_PRODUCTS", '{"spectra_levels": [200], "quantiles": [0.5]}')
    over = load_settings(config).products
    assert (over.spectra_levels, over.quantiles) == ((200,), (0.5,))
    assert over.stations == asked.stations


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('units = "kt"', 'units = "hPa"'), "thresholds in 'hPa' for a quantity in 'm s-1'"),
        (("level_hpa = 850", "level_hpa = 860"), "no wind_speed at 860 hPa.*level_hpa to one of"),
        (("level_hpa = 850\n", ""), "no wind_speed at the surface"),
        (('"wind_speed"', '"gusts"'), "no gusts at 850 hPa.*choose from"),
        (("spectra_levels = [500]", "spectra_levels = [510]"), "spectra_levels cannot be 510"),
        (('["temperature_500"]', '["temperature_510"]'), "spectra_scalars cannot be"),
        (('tracker_version = "1"', 'tracker_version = "0"'), "tracker_version cannot be 0"),
        (("latitude = 69.65", "latitude = 96.65"), "station Tromsø.*is no place"),
        (("longitude = 18.96", "longitude = 18.96\nheight = 3"), "height"),
        (("spectra_levels =", "spectral_levels ="), "spectral_levels"),
        (('side = "above"', 'side = "over"'), "above"),
        (("values = [40.0]", "values = []"), "wind_speed_850_above: thresholds cannot be empty"),
        (("values = [40.0]", "values = [40.0, inf]"), "thresholds cannot be inf"),
        (("values = [40.0]", "values = [40.0, 40.0]"), "thresholds cannot be 40.0.*each once"),
        (("spectra_levels = [500]", "spectra_levels = [500, 500]"), "spectra_levels cannot be 500"),
        (
            ('["temperature_500"]', '["temperature_500", "temperature_500"]'),
            "cannot be temperature_500",
        ),
        (("[products]", "[products]\nquantiles = [0.1, 0.9, 0.9]"), "quantiles cannot be 0.9"),
        (('["temperature_500"]', "[]"), "spectra_scalars cannot be empty.*at least one"),
    ],
)
def test_products_that_cannot_be_made_are_refused(tmp_path: Path, change, said: str) -> None:
    config = tmp_path / "ops.toml"
    assert change[0] in PRODUCTS
    config.write_text(PRODUCTS.replace(*change))
    with pytest.raises(InputError) as caught:
        load_settings(config)
    assert re.search(said, str(caught.value), re.DOTALL), str(caught.value)


def test_products_in_the_environment_must_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAIC_OPS_PRODUCTS", "spectra_levels=500")
    with pytest.raises(InputError, match="not valid JSON"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), (b"members = ", "not valid TOML"), (b"# Troms\xf8", "not UTF-8")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    config = tmp_path / "ops.toml"
    if content is not None:
        config.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        load_settings(config)
    assert str(config) in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    config = tmp_path / "ops.toml"
    config.write_text("members = 5\n", encoding="utf-8-sig")
    assert load_settings(config).members == 5


def test_products_that_are_no_table_are_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ops.toml"
    config.write_text("products = 3\n")
    with pytest.raises(InputError, match="products"):
        load_settings(config)
    monkeypatch.setenv("MOSAIC_OPS_PRODUCTS", '{"quantiles": [0.5]}')
    assert load_settings(config).products.quantiles == (0.5,)


@pytest.mark.parametrize(
    "mirror",
    ["a=nonsense", "a=", "=http://box/feed", "a=ftp://box/feed", "a=http://", "a=http://[x"],
)
def test_a_mirror_needs_a_name_and_an_address(mirror: str) -> None:
    with pytest.raises(InputError, match=r"mirrors: .*is not NAME=ADDRESS.* http"):
        load_settings(mirrors=("ecmwf", mirror))
    assert load_settings(mirrors=("a=https://box:8443/feed",)).mirrors


def test_rules_of_retention_are_read_and_bad_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ops.toml"
    config.write_text('keep_published = ["forecast=90d", "points=30d,100n"]\n')
    assert load_settings(config).keep_published == ("forecast=90d", "points=30d,100n")
    monkeypatch.setenv("MOSAIC_OPS_KEEP_PUBLISHED", "forecast=7d points=30d,100n")
    assert load_settings(config).keep_published == ("forecast=7d", "points=30d,100n")
    monkeypatch.setenv("MOSAIC_OPS_KEEP_PUBLISHED", "forecast=ten")
    with pytest.raises(InputError, match=r"keep_published: .*the retention rule 'forecast=ten'"):
        load_settings()


def test_windows_are_whole_steps_of_the_variant() -> None:
    assert load_settings(variant="era5", lead_hours=48).products.window_hours == 24
    for variant, hours in (("hres", 9), ("era5", 12)):
        with pytest.raises(InputError, match=r"products.window_hours .* whole number of"):
            load_settings(variant=variant, lead_hours=48, products={"window_hours": hours})
    load_settings(variant="hres", products={"window_hours": 12})
