"""Maps of one field: any variable, level, lead, member or statistic."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mosaic_core.contract.errors import InputError
from postprocess.plots.coastlines import around, draw_coastlines
from postprocess.plots.style import COLOURS, GREY, Shown, Stamp, new_figure, shown

Extent = tuple[float, float, float, float]

# By the last word of a scalar coordinate's name: its value, units and long name.
_SELECTED = {
    "level": "at {0:g} hPa",
    "quantile": "quantile {0:g}",
    "threshold": "{0:g} {1}",
    "class": "{0:g} {1}",
    "window": "{2} +{0:g} h",
    "number": "member {0}",
}


def map_figure(
    field: xr.DataArray,
    stamp: Stamp,
    *,
    lead_hours: int | None = None,
    title: str | None = None,
    extent: Extent | None = None,
    centre: float = 0.0,
) -> Figure:
    """A map of `field` (latitude, longitude) with coastlines and a colour bar in shown units.

    `extent` is (west, east, south, north) in degrees; without it the whole globe, `centre` in the
    middle.
    """
    if set(field.dims) != {"latitude", "longitude"}:
        raise InputError(
            f"a map needs (latitude, longitude), not {field.dims}",
            where=str(field.name),
            remedy="select one level, lead and member first",
        )
    field = field.transpose("latitude", "longitude").sortby("latitude")
    look = shown(field)
    figure = new_figure(9.5, 5.0, title or title_of(field), stamp.line(lead_hours), stamp)
    axes = figure.add_subplot()
    _draw(figure, axes, field, look, centre)
    draw_coastlines(axes, centre)
    west, east, south, north = extent or (centre - 180, centre + 180, -90, 90)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    return figure


def title_of(field: xr.DataArray) -> str:
    """The long name, and what was selected of level, quantile, threshold, class, window, member."""
    name = str(field.attrs.get("long_name", field.name))
    parts = [name[:1].upper() + name[1:]]
    for coordinate, value in field.coords.items():
        said = _SELECTED.get(str(coordinate).rpartition("_")[2])
        if said is not None and value.ndim == 0:
            about = value.attrs
            told = said.format(
                value.item(), about.get("units", ""), about.get("long_name", coordinate)
            )
            parts.append(told)
    return ", ".join(parts).replace(", at ", " at ")


def _draw(figure: Figure, axes: Axes, field: xr.DataArray, look: Shown, centre: float) -> None:
    x = around(field.longitude.values, centre)
    order = np.argsort(x)
    values = look.convert(np.asarray(field.values, dtype=np.float64)[:, order])
    x, y = np.append(x[order], x[order[0]] + 360), field.latitude.values
    values = np.concatenate([values, values[:, :1]], axis=1)  # closes the gap at the map's edge
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if look.diverging:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    mesh = axes.pcolormesh(
        x, y, values, cmap=look.colours, vmin=low, vmax=high, shading="nearest", rasterized=True
    )
    figure.colorbar(mesh, ax=axes, label=look.unit, shrink=0.82, pad=0.015)
    if look.spacing and 0 < (high - low) / look.spacing < 60:
        levels = np.arange(np.floor(low / look.spacing), np.ceil(high / look.spacing) + 1)
        lines = axes.contour(
            x, y, values, levels=levels * look.spacing, colors="white", linewidths=0.5
        )
        axes.clabel(lines, fontsize=6, fmt="%g")


def spaghetti_figure(
    members: xr.DataArray,
    stamp: Stamp,
    *,
    value: float,
    lead_hours: int | None = None,
    centre: float = 0.0,
) -> Figure:
    """One contour of every member of `members` (number, latitude, longitude) at one lead.

    `value` is in the shown unit (gpdm, hPa, °C); the thick line is the ensemble mean's. Members
    with a missing value are not drawn; InputError when no other is there.
    """
    if set(members.dims) != {"number", "latitude", "longitude"}:
        raise InputError(
            f"spaghetti need (number, latitude, longitude), not {members.dims}",
            where=str(members.name),
            remedy="select one level and one lead first",
        )
    ordered = members.transpose("number", "latitude", "longitude").sortby("latitude")
    ordered = ordered[np.isfinite(ordered.values).all(axis=(1, 2))]
    if not ordered.sizes["number"]:
        raise InputError("no healthy member is left", where=str(members.name))
    look = shown(members)
    title = f"{title_of(members)}: {value:g} {look.unit} in {ordered.sizes['number']} members"
    figure = new_figure(9.5, 5.0, title, stamp.line(lead_hours), stamp)
    axes = figure.add_subplot()
    x = around(ordered.longitude.values, centre)
    order = np.argsort(x)
    fields = look.convert(np.asarray(ordered.values, dtype=np.float64))[..., order]
    rows = ordered.latitude.values
    for index, field in enumerate(fields):
        colour = COLOURS[index % 6]
        axes.contour(x[order], rows, field, levels=[value], colors=[colour], linewidths=0.6)
    mean = fields.mean(0)
    axes.contour(x[order], rows, mean, levels=[value], colors=["black"], linewidths=1.8)
    draw_coastlines(axes, centre)
    axes.set_xlim(centre - 180, centre + 180)
    axes.set_ylim(-90, 90)
    axes.set_xlabel("black: ensemble mean; colours: members", fontsize=7, color=GREY)
    return figure
