"""Tropical cyclones: tracks, strike maps, plumes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from postprocess.plots.coastlines import around, draw_coastlines, unbroken
from postprocess.plots.maps import title_of
from postprocess.plots.series import draw_quantiles
from postprocess.plots.style import COLOURS, GREY, Stamp, new_figure
from postprocess.products.cyclones.thresholds import INTENSITY_NOTE

_PERCENT = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


def tracks_figure(tracks: pd.DataFrame, stamp: Stamp, *, centre: float = 180.0) -> Figure:
    """All member tracks, one colour a system; a map that says so when there is no storm.

    `tracks` has the columns of the cyclone product. Open circles are starts, dots cold cores.
    """
    systems = sorted(tracks.system_id.unique().tolist())
    title = f"Tropical-cyclone tracks: {len(systems)} systems"
    figure = new_figure(9.5, 4.8, title, stamp.line(), stamp)
    axes = figure.add_subplot()
    draw_coastlines(axes, centre)
    handles = []
    for index, system in enumerate(systems):
        own = tracks[tracks.system_id == system]
        colour = COLOURS[index % 7]
        for _, track in own.groupby("track_id"):
            _draw_track(axes, track.sort_values("lead_hours"), colour, centre)
        members = own.number.nunique()
        handles.append(Line2D([], [], color=colour, label=f"{_label(own)}: {members} members"))
    axes.set_xlim(centre - 180, centre + 180)
    axes.set_ylim(-65, 65)
    if systems:
        axes.legend(handles=handles, fontsize=7, ncols=2, loc="lower left")
    else:
        axes.text(centre, 0, "no tropical cyclone in any member", ha="center", fontsize=12)
    axes.set_xlabel(INTENSITY_NOTE, fontsize=7, color=GREY)
    return figure


def _label(system: pd.DataFrame) -> str:
    name = next((name for name in system.storm_name if name), "")
    return f"{system.system_id.iloc[0]} {name}".strip()


def _draw_track(axes: Axes, track: pd.DataFrame, colour: str, centre: float) -> None:
    x, y = unbroken(track.longitude.to_numpy(), track.latitude.to_numpy(), centre)
    axes.plot(x, y, color=colour, linewidth=0.9, alpha=0.8, zorder=4)
    start = track.iloc[:1]
    axes.plot(
        around(start.longitude.to_numpy(), centre), start.latitude, "o", markerfacecolor="none",
        color=colour, markersize=4, zorder=5,
    )  # fmt: skip
    cold = track[~track.warm_core]
    axes.plot(
        around(cold.longitude.to_numpy(), centre), cold.latitude, ".", color=GREY, markersize=2,
        zorder=5,
    )  # fmt: skip


def strike_figure(probability: xr.DataArray, stamp: Stamp, *, centre: float = 180.0) -> Figure:
    """A strike or activity probability (latitude, longitude), in per cent.

    `probability` is a share from 0 to 1 with a long_name.
    """
    figure = new_figure(9.5, 4.8, title_of(probability), stamp.line(), stamp)
    axes = figure.add_subplot()
    x = around(probability.longitude.values, centre)
    order = np.argsort(x)
    values = 100 * probability.transpose("latitude", "longitude").values[:, order]
    shades = axes.contourf(
        x[order], probability.latitude.values, values, levels=_PERCENT, cmap="cividis_r"
    )
    figure.colorbar(shades, ax=axes, label="% of members", shrink=0.8, pad=0.015, ticks=_PERCENT)
    draw_coastlines(axes, centre)
    axes.set_xlim(centre - 180, centre + 180)
    axes.set_ylim(-65, 65)
    if not values.max() > 0:
        axes.text(centre, 0, "no tropical cyclone in any member", ha="center", fontsize=12)
    axes.set_xlabel(INTENSITY_NOTE, fontsize=7, color=GREY)
    return figure


def plume_figure(plume: xr.Dataset, stamp: Stamp) -> Figure:
    """Pressure and wind of one system over its living members, and how many they are.

    `plume` is one `system` of the plumes product: (lead_hours, quantile).
    """
    figure = new_figure(
        8.0, 6.0, f"Plume of {plume.system.item()}: {INTENSITY_NOTE}", stamp.line(), stamp
    )
    pressure, wind, alive = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
    hours = plume.lead_hours.values
    for axes, values, label, colour in (
        (pressure, plume.mslp / 100, "central pressure, hPa", COLOURS[0]),
        (wind, plume.wind_max, "strongest 10 m wind, m s⁻¹", COLOURS[1]),
    ):
        draw_quantiles(axes, hours, values.transpose("quantile", "lead_hours"), colour)
        axes.set_ylabel(label, fontsize=8)
        axes.grid(alpha=0.3, linewidth=0.4)
    alive.bar(hours, plume.members_alive.values, width=4.5, color=GREY)
    alive.yaxis.set_major_locator(MaxNLocator(integer=True))
    alive.set_ylabel("members\nalive", fontsize=8)
    alive.set_xlabel("hours since the initial time")
    return figure
