"""Kinetic-energy spectra against the analysis."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from postprocess.plots.style import COLOURS, GREY, Stamp, new_figure

_KM_AROUND = 40_030.0
_PARTS = (("ke_rot", "rotational", COLOURS[0]), ("ke_div", "divergent", COLOURS[1]))


def spectrum_figure(
    spectra: xr.Dataset, stamp: Stamp, *, lead_hours: int, level: int | None = 500
) -> Figure:
    """Member spectra at one lead beside the analysis (lead 0) and the ensemble mean.

    `spectra` as the spectra product gives it: quarantined members are NaN there and left out
    here. `level` in hPa, or None for 10 m.
    """
    lead = _at_lead(spectra, lead_hours)
    analysis = _at_lead(spectra, 0)
    place = "10 m" if level is None else f"{level} hPa"
    title = f"Kinetic energy per total wavenumber, {place}"
    figure = new_figure(8.0, 5.0, title, stamp.line(lead_hours), stamp)
    axes = figure.add_subplot()
    degree = spectra.degree.values[1:]
    for part, label, colour in _PARTS:
        members = _finite(_values(lead, part, level)[:, 1:])
        axes.fill_between(
            degree, members.min(0), members.max(0), color=colour, alpha=0.25, linewidth=0
        )
        axes.plot(degree, members.mean(0), color=colour, label=f"{label}, mean of member spectra")
        axes.plot(
            degree, _finite(_values(analysis, part, level)[:, 1:])[0], color=colour, linestyle=":",
            linewidth=1.8, label=f"{label}, analysis",
        )  # fmt: skip
        axes.plot(
            degree, _mean_field(lead, part, level)[1:], color=GREY, linewidth=0.9,
            linestyle="-" if part == "ke_rot" else "--",
            label=f"{label}, of the ensemble-mean wind (damped by construction)",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, degree[-1])
    axes.set_xlabel("total wavenumber")
    axes.set_ylabel("kinetic energy, m² s⁻²")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    _wavelengths(axes)
    axes.legend(fontsize=7.5, loc="lower left")
    return figure


def _wavelengths(axes: Axes) -> None:
    lengths = np.array([20_000, 10_000, 5_000, 2_000, 1_000, 500])
    above = axes.secondary_xaxis("top", functions=(lambda n: n, lambda n: n))
    above.set_xticks(_KM_AROUND / lengths, [f"{length} km" for length in lengths])
    above.minorticks_off()
    above.tick_params(labelsize=7, color=GREY, labelcolor=GREY)


def _at_lead(spectra: xr.Dataset, lead_hours: int) -> xr.Dataset:
    leads = spectra.lead_time.values / np.timedelta64(1, "h")
    found = np.flatnonzero(leads == lead_hours)
    if not found.size:
        raise InputError(
            f"no lead of {lead_hours} h",
            where="spectra",
            remedy=f"leads run from {leads[0]:g} to {leads[-1]:g} h",
        )
    return spectra.isel(lead_time=int(found[0]))


def _values(spectra: xr.Dataset, part: str, level: int | None) -> NDArray[np.floating]:
    if level is None:
        return np.asarray(spectra[f"{part}_10m"].values)
    return np.asarray(_on_level(spectra, level)[part].values)


def _finite(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The members (member, degree) that have a whole spectrum; all when none has."""
    whole = np.isfinite(values).all(axis=1)
    return values[whole] if whole.any() else values


def _mean_field(spectra: xr.Dataset, part: str, level: int | None) -> NDArray[np.floating]:
    if level is None:
        return np.asarray(spectra[f"{part}_10m_ensemble_mean"].values)
    return np.asarray(_on_level(spectra, level)[f"{part}_ensemble_mean"].values)


def _on_level(spectra: xr.Dataset, level: int) -> xr.Dataset:
    if level not in spectra.level.values:
        raise InputError(
            f"no spectrum at {level} hPa",
            where="spectra",
            remedy=f"levels are {', '.join(map(str, spectra.level.values))} hPa",
        )
    return spectra.sel(level=level)
