"""Every figure is drawn, also from empty products, with its units, cycle and banner."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import QuadContourSet
from matplotlib.text import Text

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.plots.coastlines import coastlines, unbroken
from postprocess.plots.maps import map_figure, spaghetti_figure
from postprocess.plots.series import meteogram_figure
from postprocess.plots.spectrum import spectrum_figure
from postprocess.plots.style import Stamp, save
from postprocess.plots.tracks import plume_figure, strike_figure, tracks_figure
from postprocess.products.cyclones.probability import plumes, probabilities
from postprocess.products.cyclones.tracks import TRACK_COLUMNS, empty_tracks

STAMP = Stamp("2026-09-01T00Z", "Mosaic mini, 3 members", "random weights: not weather")
LEADS = np.array([0, 6, 12], dtype="timedelta64[h]").astype("timedelta64[ns]")


def field(standard_name: str, units: str, **extra) -> xr.DataArray:
    values = 10 * np.cos(np.deg2rad(LATITUDE))[:, None] * np.cos(np.deg2rad(3 * LONGITUDE))[None, :]
    offset = {"K": 280, "Pa": 101_000, "m2 s-2": 55_000}.get(units, 0)
    return xr.DataArray(
        (values * (100 if units in ("Pa", "m2 s-2") else 1) + offset).astype(np.float32),
        dims=("latitude", "longitude"),
        coords={"latitude": LATITUDE, "longitude": LONGITUDE},
        attrs={"standard_name": standard_name, "units": units, "long_name": "A field", **extra},
        name="field",
    )


def tracks() -> pd.DataFrame:
    init = pd.Timestamp("2026-09-01")
    table = pd.DataFrame({
        "track_id": ["00-0"] * 3 + ["01-0"], "lead_hours": [0, 6, 12, 0],
        "latitude": [10.0, 11, 12, 10], "longitude": [178.0, 180, 182, 178],
    })  # fmt: skip
    table = table.assign(
        number=[0, 0, 0, 1], system_id="70W", storm_id="", storm_name="", category="existing",
        basin="", init_time=init, time=init, mslp_pa=99_000.0, mslp_grid_pa=99_000.0,
        wind_max_ms=20.0, wind_max_latitude=0.0, wind_max_longitude=0.0, vorticity_850=1e-4,
        warm_core=[True, True, False, True], closed_contour=True, tracker_version="1",
    )  # fmt: skip
    return table[list(TRACK_COLUMNS)].astype(dict(TRACK_COLUMNS))


def spectra() -> xr.Dataset:
    degree = np.arange(120)
    energy = np.where(degree > 0, np.maximum(degree, 1.0) ** -3.0, 0.0)
    coords = {"number": [0, 1, 2], "lead_time": LEADS, "level": [500], "degree": degree}
    arrays = {}
    for part in ("ke_rot", "ke_div"):
        arrays[part] = (("number", "lead_time", "level", "degree"),
                        np.broadcast_to(energy, (3, 3, 1, 120)))  # fmt: skip
        arrays[f"{part}_10m"] = (("number", "lead_time", "degree"),
                                 np.broadcast_to(energy, (3, 3, 120)))  # fmt: skip
        arrays[f"{part}_ensemble_mean"] = (("lead_time", "level", "degree"),
                                           np.broadcast_to(energy, (3, 1, 120)))  # fmt: skip
        arrays[f"{part}_10m_ensemble_mean"] = (("lead_time", "degree"),
                                               np.broadcast_to(energy, (3, 120)))  # fmt: skip
    return xr.Dataset(arrays, coords=coords)


def points() -> xr.Dataset:
    values = np.linspace(270, 290, 15).reshape(1, 5, 3)
    return xr.Dataset(
        {"2m_temperature_quantile": (("station", "quantile", "lead_time"), values,
                                     {"standard_name": "air_temperature", "units": "K",
                                      "long_name": "2 metre temperature"})},
        coords={"station": ["Reading"], "quantile": [0.1, 0.25, 0.5, 0.75, 0.9],
                "lead_time": LEADS, "latitude": ("station", [51.45]),
                "longitude": ("station", [-0.97])},
    )  # fmt: skip


MEMBERS = {lead: range(3) for lead in (0, 6, 12)}
FIGURES = {
    "map": lambda: map_figure(field("air_temperature", "K"), STAMP, lead_hours=6),
    "map of a spread": lambda: map_figure(
        field("geopotential", "m2 s-2", cell_methods="realization: standard_deviation"), STAMP
    ),
    "map around the dateline": lambda: map_figure(
        field("eastward_wind", "m s-1"), STAMP, centre=180.0
    ),
    "constant map": lambda: map_figure(0 * field("eastward_wind", "m s-1"), STAMP),
    "map of NaN": lambda: map_figure(field("specific_humidity", "kg kg-1") * np.nan, STAMP),
    "spaghetti": lambda: spaghetti_figure(
        field("geopotential", "m2 s-2").expand_dims(number=[0, 1, 2]), STAMP, value=560
    ),
    "spectrum": lambda: spectrum_figure(spectra(), STAMP, lead_hours=12),
    "spectrum at 10 m": lambda: spectrum_figure(spectra(), STAMP, lead_hours=6, level=None),
    "tracks": lambda: tracks_figure(tracks(), STAMP),
    "no tracks": lambda: tracks_figure(empty_tracks(), STAMP),
    "strike": lambda: strike_figure(probabilities(tracks(), MEMBERS).strike_probability, STAMP),
    "no strike": lambda: strike_figure(
        probabilities(empty_tracks(), MEMBERS).activity_probability, STAMP
    ),
    "plume": lambda: plume_figure(plumes(tracks(), MEMBERS).isel(system=0), STAMP),
    "meteogram": lambda: meteogram_figure(points(), STAMP, station="Reading"),
}


def texts(figure) -> str:
    return "\n".join(found.get_text() for found in figure.findobj(Text))


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_with_cycle_and_banner(name, tmp_path):
    figure = FIGURES[name]()
    written = texts(figure)
    assert "cycle 2026-09-01T00Z" in written
    assert "random weights: not weather" in written
    png = save(figure, tmp_path / "figure.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 800
    assert height >= 350


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off(name):
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    # Labels of ticks beyond the ends of an axis are not drawn.
    ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    for text in set(figure.findobj(Text)) - ticks:
        box = text.get_window_extent()
        if text.get_text().strip() and text.get_visible() and text.get_rotation() != 20:  # banner
            inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
            inside &= figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 + 1
            assert inside, text


def test_svg_is_drawn_and_repeats_to_the_bit(tmp_path):
    first = save(FIGURES["map"](), tmp_path / "a.svg").read_bytes()
    again = save(FIGURES["map"](), tmp_path / "b.svg").read_bytes()
    assert b"<svg" in first
    assert first == again


def test_units_are_on_the_figures():
    assert "°C" in texts(FIGURES["map"]())
    assert "gpdm" in texts(FIGURES["map of a spread"]())
    assert "m² s⁻²" in texts(FIGURES["spectrum"]())
    assert "% of members" in texts(FIGURES["strike"]())
    assert "valid 2026-09-01 06:00 UTC" in texts(FIGURES["map"]())


def test_titles_say_what_was_selected_and_fit():
    found = probabilities(tracks(), MEMBERS)
    windy = strike_figure(found.activity_probability_above_wind.sel(wind_class=17), STAMP)
    assert "any tropical cyclone within 300 km, wind above the class, 17 m s-1" in texts(windy)
    later = strike_figure(found.strike_probability_in_window.isel(window=0), STAMP)
    assert "within 120 km, lead at the start of the window +0 h" in texts(later)
    quantile = field("geopotential", "m2 s-2").assign_coords(quantile=0.9, level=500)
    assert "A field, quantile 0.9 at 500 hPa" in texts(map_figure(quantile, STAMP))
    share = field("wind_speed", "1", long_name="share of members with a wind")
    assert "% of members" in texts(map_figure(share, STAMP))
    figure = map_figure(quantile, STAMP, title="A title " * 14)
    FigureCanvasAgg(figure).draw()
    title = next(found for found in figure.findobj(Text) if found.get_text().startswith("A title"))
    assert title.get_window_extent().x1 < figure.bbox.width


def test_intensity_note_is_on_every_cyclone_figure():
    for name in ("tracks", "strike", "plume"):
        assert "grid-scale intensity at 1.5 degrees" in texts(FIGURES[name]())


def test_coastlines_are_the_worlds():
    points = coastlines()
    assert len(points) > 4000
    assert np.nanmax(np.abs(points[:, 0])) <= 180
    near_reading = np.hypot(points[:, 0] - 1.4, points[:, 1] - 51.1)  # Dover is on a coast
    assert np.nanmin(near_reading) < 1.0


def test_lines_are_cut_at_the_edge_of_the_map():
    x, y = unbroken(np.array([178.0, -178.0]), np.array([10.0, 12.0]), 0.0)
    assert np.isnan(x[1])
    assert np.isnan(y[1])
    x, _ = unbroken(np.array([178.0, -178.0]), np.array([10.0, 12.0]), 180.0)
    assert x.tolist() == [178.0, 182.0]


def test_drawing_needs_no_display_and_no_pyplot():
    import subprocess
    import sys

    code = "import sys, postprocess.plots.maps; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_a_quarantined_member_is_left_out_of_the_spectrum():
    sick = spectra().copy(deep=True)
    for name in ("ke_rot", "ke_div"):
        sick[name] = sick[name].where((sick.number != 0) | (sick.lead_time < LEADS[1]))
    figure = spectrum_figure(sick, STAMP, lead_hours=12)
    whole = spectrum_figure(spectra(), STAMP, lead_hours=12)
    for line, other in zip(figure.axes[0].lines, whole.axes[0].lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), other.get_ydata())
    bands = figure.axes[0].collections
    assert all(np.isfinite(path.vertices).all() for band in bands for path in band.get_paths())
    assert all(band.get_paths()[0].vertices.size for band in bands)
    alone = spectra().where(spectra().lead_time < LEADS[1])
    assert texts(spectrum_figure(alone, STAMP, lead_hours=12))


def stretches(figure) -> list[int]:
    """Vertices of every member's line, the mean's last."""
    lines = [found for found in figure.axes[0].collections if isinstance(found, QuadContourSet)]
    return [sum(len(path.vertices) for path in line.get_paths()) for line in lines]


def test_a_member_without_numbers_is_left_out_of_the_spaghetti():
    members = field("geopotential", "m2 s-2").expand_dims(number=[0, 1, 2]).copy()
    members[1] = np.nan
    figure = spaghetti_figure(members, STAMP, value=560)
    assert len(stretches(figure)) == 3
    assert min(stretches(figure)) > 100
    assert "in 2 members" in texts(figure)
    with pytest.raises(InputError, match="no healthy member is left"):
        spaghetti_figure(members * np.nan, STAMP, value=560)


def test_quantiles_are_drawn_for_what_they_are():
    own = points().isel(quantile=[4, 2, 0, 3]).assign_coords(quantile=[0.9, 0.5, 0.1, 0.99])
    axes = meteogram_figure(own, STAMP, station="Reading").axes[0]
    median, odd = axes.lines
    values = points()["2m_temperature_quantile"].values[0] - 273.15
    np.testing.assert_allclose(median.get_ydata(), values[2])
    assert odd.get_linestyle() == "--"
    np.testing.assert_allclose(odd.get_ydata(), values[3])
    assert [found.get_text() for found in axes.texts] == ["0.99"]
    (band,) = axes.collections
    low, high = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((values[0].min(), values[4].max()))
    high_only = points().isel(quantile=[2, 3, 4]).assign_coords(quantile=[0.9, 0.95, 0.99])
    axes = meteogram_figure(high_only, STAMP, station="Reading").axes[0]
    assert {line.get_linestyle() for line in axes.lines} == {"--"}
    assert not axes.collections


def test_every_quantity_has_its_panel():
    one = points()["2m_temperature_quantile"]
    many = xr.Dataset({f"q{index}_quantile": one for index in range(10)})
    figure = meteogram_figure(many, STAMP, station="Reading")
    assert [len(axes.lines) for axes in figure.axes] == [1] * 10


def test_a_long_banner_fits_in_lines():
    notice = "Demonstration: made-up atmosphere, random weights. These maps are not weather."
    figure = map_figure(field("air_temperature", "K"), Stamp("2026-09-01T00Z", "Mosaic", notice))
    FigureCanvasAgg(figure).draw()
    banners = [found for found in figure.texts if "random" in found.get_text().lower()]
    assert [" ".join(found.get_text().split()) for found in banners] == [notice.upper(), notice]
    title = next(found for found in figure.texts if found.get_text() == "A field")
    for banner in banners:
        box = banner.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height
    assert banners[1].get_window_extent().x0 > figure.bbox.width / 2
    assert title.get_window_extent().x1 < banners[1].get_window_extent().x0


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="a map needs"):
        map_figure(field("air_temperature", "K").expand_dims(number=[0]), STAMP)
    with pytest.raises(InputError, match="spaghetti need"):
        spaghetti_figure(field("air_temperature", "K"), STAMP, value=0)
    with pytest.raises(InputError, match="no lead of 24 h"):
        spectrum_figure(spectra(), STAMP, lead_hours=24)
    with pytest.raises(InputError, match="no spectrum at 850 hPa"):
        spectrum_figure(spectra(), STAMP, lead_hours=6, level=850)
    with pytest.raises(InputError, match="no station 'Paris'"):
        meteogram_figure(points(), STAMP, station="Paris")
    with pytest.raises(InputError, match="PNG or SVG"):
        save(FIGURES["no tracks"](), tmp_path / "figure.jpg")
