"""What all figures share: how quantities are shown, the stamp, the banner, saving."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.contract.files import figure_form, write_atomic
from mosaic_core.contract.grid import STANDARD_GRAVITY

# Okabe and Ito's palette: eight colours told apart with any common colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#6b6b6b"
DPI = 110
_TITLE_LETTERS = 8.0  # an inch of width holds so many letters of a title of 12 points
_ACROSS_LETTERS, _CORNER_LETTERS = 28, 30  # of one line of a banner at its full size


@dataclass(frozen=True)
class Shown:
    """How a quantity is drawn: unit on the figure, conversion from SI, colour map, line spacing.

    `diverging` maps are centred on zero. `spacing` (shown unit) adds contour lines; 0 for none.
    """

    unit: str
    convert: Callable[[NDArray[np.floating]], NDArray[np.floating]] = lambda values: values
    colours: str = "viridis"
    diverging: bool = False
    spacing: float = 0.0


_SHOWN = {
    "air_temperature": Shown("°C", lambda kelvin: kelvin - 273.15, "cividis", spacing=10),
    "air_pressure_at_mean_sea_level": Shown("hPa", lambda pa: pa / 100, "viridis", spacing=8),
    "geopotential": Shown("gpdm", lambda z: z / STANDARD_GRAVITY / 10, "viridis", spacing=12),
    "specific_humidity": Shown("g kg⁻¹", lambda q: q * 1000, "cividis"),
    "eastward_wind": Shown("m s⁻¹", colours="PuOr_r", diverging=True),
    "northward_wind": Shown("m s⁻¹", colours="PuOr_r", diverging=True),
    "lagrangian_tendency_of_air_pressure": Shown("Pa s⁻¹", colours="PuOr_r", diverging=True),
    "wind_speed": Shown("m s⁻¹", colours="magma_r"),
}
_PROBABILITY = Shown("% of members", lambda share: 100 * share, "Blues")
_SPREAD_FACTOR = {"°C": 1.0, "hPa": 0.01, "gpdm": 0.1 / STANDARD_GRAVITY, "g kg⁻¹": 1000.0}


def shown(field: xr.DataArray) -> Shown:
    """How to draw a field, from its standard name; differences and spreads lose their offset."""
    base = _SHOWN.get(str(field.attrs.get("standard_name", "")))
    if str(field.attrs.get("long_name", "")).startswith("share of members"):
        return _PROBABILITY
    if base is None:
        return Shown(str(field.attrs.get("units", "")))
    if "standard_deviation" in str(field.attrs.get("cell_methods", "")):
        factor = _SPREAD_FACTOR.get(base.unit, 1.0)
        return Shown(base.unit, lambda values: values * factor, "magma_r")
    return base


@dataclass(frozen=True)
class Stamp:
    """What every figure says of its origin: cycle, source line, and a banner when it must warn.

    `cycle` is a label like 2026-11-23T00Z; `source` names model and members; a `banner` such as
    "random weights: not weather" is drawn across the figure.
    """

    cycle: str
    source: str = "Mosaic"
    banner: str = ""

    def line(self, lead_hours: int | None = None) -> str:
        """The line under the title: cycle, lead, valid time, source."""
        parts = [f"cycle {self.cycle}"]
        if lead_hours is not None:
            parts.append(f"+{lead_hours} h, valid {self._valid(lead_hours)}")
        return "   ".join([*parts, self.source])

    def _valid(self, lead_hours: int) -> str:
        start = np.datetime64(self.cycle.rstrip("Z").replace("T", " ") + ":00")
        return str(start + np.timedelta64(lead_hours, "h")).replace("T", " ") + " UTC"


def members_told(left: int, started: int) -> str:
    """How many members a figure shows: "48 of 50 members" when some were quarantined."""
    return f"{started} members" if left == started else f"{left} of {started} members"


def new_figure(width: float, height: float, title: str, line: str, stamp: Stamp) -> Figure:
    """A figure (inches) with title, stamp line and banner; axes are the caller's."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    size = min(12.0, 12.0 * _TITLE_LETTERS * width / max(len(title), 1))
    figure.suptitle("\n", fontsize=12, linespacing=1.5)  # room for the two lines at the top
    figure.text(
        0.01, 1 - 0.1 / height, title, ha="left", va="top", fontsize=size, fontweight="bold"
    )
    figure.text(0.01, 1 - 0.36 / height, line, ha="left", va="top", fontsize=8.5, color=GREY)
    if stamp.banner.strip():
        _draw_banner(figure, stamp.banner, height)
    return figure


def _draw_banner(figure: Figure, banner: str, height: float) -> None:
    """The banner across the figure and in its corner; a long one in several, smaller lines."""
    across = textwrap.wrap(banner.upper(), _ACROSS_LETTERS)
    figure.text(
        0.5, 0.5, "\n".join(across), ha="center", va="center", rotation=20,
        fontsize=min(30.0, 90.0 / len(across)), color="#D55E00", alpha=0.22, fontweight="bold",
        zorder=10,
    )  # fmt: skip
    corner = textwrap.wrap(banner, max(_CORNER_LETTERS, math.ceil(len(banner) / 2)))
    figure.text(
        0.99, 1 - 0.12 / height, "\n".join(corner), ha="right", va="top",
        fontsize=min(10.0, 10.0 * _CORNER_LETTERS / max(map(len, corner))),
        color="white", fontweight="bold", bbox={"facecolor": "#D55E00", "edgecolor": "none"},
    )  # fmt: skip


def save(figure: Figure, path: Path) -> Path:
    """Write the figure whole or not at all; the suffix (.png or .svg) decides the form."""
    kind = figure_form(path)
    content = io.BytesIO()
    # A fixed salt and no date: the same figure is the same file.
    with mpl.rc_context({"svg.hashsalt": "mosaic-ops"}):
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(path, content.getvalue())
    return path
