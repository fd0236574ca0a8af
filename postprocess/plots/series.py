"""Time series with quantile bands: meteograms."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from postprocess.plots.style import COLOURS, Stamp, new_figure, shown

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
    for axes, name, colour in zip(every, quantities, COLOURS, strict=False):
        field = own[name]
        look = shown(field)
        values = look.convert(field.transpose("quantile", "lead_time").values)
        draw_quantiles(axes, hours, values, colour)
        title = str(field.attrs.get("long_name", name))
        axes.set_ylabel(f"{title}\n{look.unit}", fontsize=7.5)
        axes.grid(alpha=0.3, linewidth=0.4)
    every[-1].set_xlabel("hours since the initial time (values of the 1.5° grid)")
    return figure


def draw_quantiles(
    axes: Axes, hours: NDArray[np.generic], values: NDArray[np.floating], colour: str
) -> None:
    """Bands between symmetric quantiles (quantile, hour), the median as a line."""
    count = values.shape[0]
    for low in range(count // 2):
        axes.fill_between(
            hours, values[low], values[count - 1 - low], color=colour, alpha=0.2, linewidth=0
        )
    if count % 2:
        axes.plot(hours, values[count // 2], color=colour, linewidth=1.4, marker=".", markersize=3)
