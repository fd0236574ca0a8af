"""Kinetic-energy spectra of a streaming forecast: every member and the ensemble mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.schema import ArraySchema, DatasetSchema
from postprocess.products.requests import ProductRequest
from postprocess.products.spectra.energy import kinetic_energy, operator
from postprocess.products.stream import SameRun, coordinate, forecast_coordinates, plane

BANDS = ((1, 20), (21, 60), (61, 90), (91, 119))
SURFACE = "10m"

_PARTS = {"ke_rot": "rotational", "ke_div": "divergent"}
_NOTE = (
    "Per total wavenumber; the sum over degrees of ke_rot and ke_div is the area-mean kinetic "
    "energy per unit mass. Compare only with winds regridded by the same method: regridding "
    "decides the tail. The spectrum of the ensemble mean is damped by construction."
)


def spectra_schema(*, levels: bool, surface: bool) -> DatasetSchema:
    """Schema of the spectra of one forecast with or without pressure levels and 10 m."""
    variables = {}
    for name in _PARTS:
        if levels:
            dims = ("lead_time", "level", "degree")
            variables[name] = ArraySchema(("number", *dims), attributes={"units": "m2 s-2"})
            variables[f"{name}_ensemble_mean"] = ArraySchema(dims)
        if surface:
            flat = ("lead_time", "degree")
            variables[f"{name}_{SURFACE}"] = ArraySchema(("number", *flat))
            variables[f"{name}_{SURFACE}_ensemble_mean"] = ArraySchema(flat)
    return DatasetSchema("kinetic-energy spectra", variables, ascending=("lead_time", "degree"))


SPECTRA = spectra_schema(levels=True, surface=True)


class KineticEnergySpectra:
    """Kinetic energy per degree for pressure `levels` (hPa) and, with `surface`, for 10 m winds.

    `result()` is SPECTRA: ke_rot and ke_div (number, lead_time, level, degree) float32 in m2 s-2,
    the same with suffix `_10m`, and the spectra of the ensemble-mean wind with suffix
    `_ensemble_mean`, and band ratios to the analysis. Lead 0 is the analysis the members start
    from; members that have left the forecast are NaN.
    """

    name = "spectra"

    def __init__(
        self, levels: Sequence[int] = ProductRequest.spectra_levels, *, surface: bool = True
    ) -> None:
        self._levels = tuple(sorted(levels))
        self._surface = surface
        self._run = SameRun()
        self._numbers: tuple[int, ...] = ()
        self._init_time: np.datetime64 = np.datetime64("NaT")
        self._leads: list[np.timedelta64] = []
        self._energies: list[NDArray[np.float32]] = []

    def update(self, step: ForecastStep) -> None:
        """Transform the winds of one lead: StoreError when a level is absent."""
        self._run.check(step)
        pairs = [
            (f"u_component_of_wind_{level}", f"v_component_of_wind_{level}")
            for level in self._levels
        ]
        if self._surface:
            pairs.append(("10m_u_component_of_wind", "10m_v_component_of_wind"))
        self._numbers = self._numbers or step.numbers
        found = np.stack([_spectra_of_pair(step, *pair) for pair in pairs])
        self._energies.append(self._with_absent(found, step.numbers))
        self._init_time = step.init_time
        self._leads.append(step.lead_time)

    def result(self) -> xr.Dataset:
        """The spectra of all steps so far; StoreError when there was none."""
        if not self._energies:
            raise StoreError("no step was given", where=self.name)
        # (lead, plane, part, member..., degree); the last "member" is the ensemble mean
        energies = np.stack(self._energies)
        planes = len(self._levels)
        arrays: dict[str, tuple[tuple[str, ...], NDArray[np.float32], dict[str, str]]] = {}
        for index, (name, kind) in enumerate(_PARTS.items()):
            part = energies[:, :, index]
            if planes:
                arrays |= _arrays(name, kind, part[:, :planes].transpose(2, 0, 1, 3), ("level",))
            if self._surface:
                height = f"{name}_{SURFACE}"
                arrays |= _arrays(height, f"10 m {kind}", part[:, planes].swapaxes(0, 1), ())
        coords = forecast_coordinates(self._init_time, self._leads)
        coords["number"] = coordinate("number", self._numbers)
        if planes:
            coords["level"] = coordinate("level", self._levels)
        coords["degree"] = xr.Variable(
            "degree", np.arange(energies.shape[-1]), {"long_name": "total wavenumber", "units": "1"}
        )
        attributes = {"Conventions": "CF-1.12", "title": "Kinetic-energy spectra", "comment": _NOTE}
        dataset = xr.Dataset(arrays, coords=coords, attrs=attributes)
        schema = spectra_schema(levels=bool(planes), surface=self._surface)
        return with_band_ratios(schema.validate(dataset, where="spectra product"))

    def _with_absent(
        self, found: NDArray[np.float32], numbers: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Rows of NaN for members that have left; the ensemble mean stays last."""
        if numbers == self._numbers:
            return found
        shape = (*found.shape[:-2], len(self._numbers) + 1, found.shape[-1])
        whole = np.full(shape, np.nan, dtype=np.float32)
        alive = [self._numbers.index(number) for number in numbers]
        whole[..., [*alive, -1], :] = found
        return whole


def with_band_ratios(spectra: xr.Dataset) -> xr.Dataset:
    """The spectra with `band_ratio` (number, lead_time, level, band) where lead 0 is there.

    Kinetic energy of a member in a band of degrees relative to the analysis on the same grid. One
    member's ratio has a sampling noise of a few per cent: judge means over members.
    """
    if "ke_rot" not in spectra or spectra.lead_time.values[0] != np.timedelta64(0):
        return spectra
    energy = (spectra.ke_rot + spectra.ke_div).astype(np.float64)
    bands = [energy.sel(degree=slice(*band)).sum("degree", min_count=1) for band in BANDS]
    labels = [f"{low}-{high}" for low, high in BANDS]
    joined = xr.concat(bands, xr.DataArray(labels, dims="band", name="band"))
    analysis = joined.isel(lead_time=0).mean("number").reset_coords(drop=True)
    ratio = (joined / analysis).transpose("number", "lead_time", "level", "band")
    ratio.attrs = {"long_name": "kinetic energy relative to the analysis", "units": "1"}
    return spectra.assign(band_ratio=ratio.astype(np.float32))


def _spectra_of_pair(step: ForecastStep, u_name: str, v_name: str) -> NDArray[np.float32]:
    """(2 parts, members + 1, degree) of one wind; the last row is the ensemble mean."""
    u, v = (_with_mean(plane(step, name)) for name in (u_name, v_name))
    op = operator(*u.shape[-2:], spin=1, south_first=True, dtype="float32")
    return np.stack(kinetic_energy(op, u, v))


def _with_mean(members: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = members.mean(0, dtype=np.float64, keepdims=True).astype(np.float32)
    return np.concatenate([members, mean])


def _arrays(
    name: str, kind: str, values: NDArray[np.float32], dims: tuple[str, ...]
) -> dict[str, tuple[tuple[str, ...], NDArray[np.float32], dict[str, str]]]:
    """Member and ensemble-mean variables from (member + 1, lead_time, *dims, degree)."""
    attributes = {"long_name": f"{kind} kinetic energy per degree", "units": "m2 s-2"}
    of_mean = {
        "long_name": f"{kind} kinetic energy per degree of the ensemble-mean wind",
        "units": "m2 s-2",
        "comment": "damped by construction: not the mean of the member spectra",
    }
    tail = ("lead_time", *dims, "degree")
    return {
        name: (("number", *tail), values[:-1], attributes),
        f"{name}_ensemble_mean": (tail, values[-1], of_mean),
    }
