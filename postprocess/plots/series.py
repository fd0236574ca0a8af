"""Time series with quantile bands: meteograms."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from postprocess.plots.style import COLOURS, Stamp, new_figure, shown

_MEDIAN = 0.5
_HOUR = np.timedelta64(1, "h")


def meteogram_figure(points: xr.Dataset, stamp: Stamp, *, station: str) -> Figure:
    """Quantile bands of every quantity at one station of the point-series product."""
    names = [str(name) for name in points.station.values.tolist()]
    if station not in names:
        raise InputError(
            f"no station {station!r}", where="meteogram", remedy=f"choose from {', '.join(names)}"
        )
    own = points.isel(station=names.index(station))
    quantities = [str(name) for name in own.data_vars if str(name).endswith("_quantile")]
    place = f"{abs(own.latitude.item()):.2f}°{'N' if own.latitude >= 0 else 'S'}"
    east = (own.longitude.item() + 180) % 360 - 180
    place += f" {abs(east):.2f}°{'E' if east >= 0 else 'W'}"
    title = f"Meteogram {station}, {place}"
    figure = new_figure(8.0, 1.4 + 1.9 * len(quantities), title, stamp.line(), stamp)
    every = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
    hours = own.lead_time.values / _HOUR
    for axes, name, colour in zip(every, quantities, cycle(COLOURS), strict=False):
        field = own[name].transpose("quantile", "lead_time")
        look = shown(field)
        draw_quantiles(axes, hours, field.copy(data=look.convert(field.values)), colour)
        title = str(field.attrs.get("long_name", name))
        axes.set_ylabel(f"{title}\n{look.unit}", fontsize=7.5)
        axes.grid(alpha=0.3, linewidth=0.4)
    every[-1].set_xlabel("hours since the initial time (values of the 1.5° grid)")
    return figure


def draw_quantiles(
    axes: Axes, hours: NDArray[np.generic], values: xr.DataArray, colour: str
) -> None:
    """Bands between the quantiles that mirror each other about the median, which is a line.

    `values` (quantile, hour) carry their quantiles in any order; one without its mirror image is
    a dashed line with its name.
    """
    lines = {round(float(level), 6): line.values
             for level, line in zip(values["quantile"], values, strict=True)}  # fmt: skip
    for level, line in lines.items():
        mirrored = lines.get(round(1 - level, 6))
        if level == _MEDIAN:
            axes.plot(hours, line, color=colour, linewidth=1.4, marker=".", markersize=3)
        elif mirrored is None:
            axes.plot(hours, line, color=colour, linewidth=0.9, linestyle="--")
            axes.annotate(f"{level:g}", (hours[-1], line[-1]), fontsize=6.5, ha="right")
        elif level < _MEDIAN:
            axes.fill_between(hours, line, mirrored, color=colour, alpha=0.2, linewidth=0)
