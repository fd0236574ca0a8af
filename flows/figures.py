"""The figures that come with every run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle

if TYPE_CHECKING:
    from postprocess.plots.style import Stamp

FIGURES = "figures"
FIGURE_NAMES = (
    "mean_sea_level_pressure.png",
    "geopotential_500.png",
    "spectrum.png",
    "tracks.png",
)


def draw_figures(folder: Path, cycle: Cycle, settings: Settings) -> None:
    """Mean sea level pressure, 500 hPa geopotential, a spectrum and the tracks, as PNG.

    They tell how many members are healthy at the last lead, and the notice of the settings.
    The stores of the run lie in `folder`; the figures go to its sub-folder `figures`, and what
    the page in the browser draws with to `atlas`.
    """
    from postprocess.plots.maps import map_figure
    from postprocess.plots.spectrum import spectrum_figure
    from postprocess.plots.style import save
    from postprocess.plots.tracks import tracks_figure
    from postprocess.products.cyclones.formats import read_tracks
    from postprocess.viewer.atlas import write_atlas

    ensemble = _opened(folder / "ensemble.zarr")
    hours = int(ensemble["lead_time"].values[-1] / np.timedelta64(1, "h"))
    last = ensemble.isel(lead_time=-1)
    stamp = stamp_of_run(cycle, int(last["number_of_members"]), settings)
    pressure = last["mean_sea_level_pressure_mean"]
    height = last["geopotential_mean"].sel(level=500)
    spectra = _opened(folder / "spectra.zarr")
    drawn = (
        map_figure(pressure, stamp, lead_hours=hours),
        map_figure(height, stamp, lead_hours=hours),
        spectrum_figure(spectra, stamp, lead_hours=hours, level=_spectrum_level(spectra)),
        tracks_figure(read_tracks(folder / "tracks.parquet"), stamp),
    )
    for name, figure in zip(FIGURE_NAMES, drawn, strict=True):
        save(figure, folder / FIGURES / name)
    write_atlas(ensemble, folder)


def stamp_of_run(cycle: Cycle, healthy: int, settings: Settings) -> Stamp:
    """What the figures say of a run with so many healthy members left: the notice warns."""
    from postprocess.plots.style import Stamp, members_told

    members = members_told(healthy, settings.members)
    return Stamp(cycle.label, f"Mosaic {settings.variant}, {members}", settings.notice or "")


def _spectrum_level(spectra: xr.Dataset) -> int | None:
    """500 hPa where there is a spectrum of it, else the first level, else 10 m."""
    levels: list[int] = spectra["level"].values.tolist() if "level" in spectra.coords else []
    return 500 if 500 in levels else next(iter(levels), None)


def _opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None, consolidated=True)
