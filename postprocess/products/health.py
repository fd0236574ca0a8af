"""Health of every member while the forecast streams by; sick members leave the products.

Checks compare a member with physical bounds, with the analysis it started from and, where there
are at least three members, with the median member, which is the sharpest of the three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.grid import LATITUDE, area_weights
from mosaic_core.contract.variables import channel
from postprocess.products.spectra.energy import kinetic_energy, operator
from postprocess.products.spectra.stream import BANDS
from postprocess.products.stream import plane

HEALTH_COLUMNS = {
    "number": "int64",
    "lead_hours": "int64",
    "check": "str",
    "subject": "str",
    "value": "float64",
    "limit": "float64",
}
"""One row a fault: which member, when, which check on what, the value and the limit it passed."""


@dataclass(frozen=True)
class HealthLimits:
    """Limits of the checks, version 1."""

    # Points outside the physical range of a channel: a few are packing and mountains.
    outside_share: float = 1e-4
    # Area means. The mass of dry air cannot change: mean sea-level pressure moves by less than
    # 1 hPa in ten days (water vapour and the reduction to sea level). The mean temperature of the
    # 500 hPa surface moves by a few tenths of a kelvin with season and synoptic noise.
    mass_drift_pa: float = 250.0
    mass_from_median_pa: float = 100.0
    temperature_drift_k: float = 2.0
    temperature_from_median_k: float = 1.0
    # Kinetic energy at 500 hPa in four bands, relative to the analysis. Healthy flow keeps within
    # 15 % at large scales; regridding noise and the sample of one member widen the small ones.
    lowest_band_ratio: tuple[float, ...] = (0.6, 0.5, 0.4, 0.3)
    highest_band_ratio: tuple[float, ...] = (1.6, 1.8, 2.2, 3.0)
    # Change since the step before, relative to the median member: permuted channels and sudden
    # shifts exceed it, while members' global changes differ by a few per cent.
    jump_ratio: float = 1.5


@dataclass
class _Faults:
    """Faults found at one lead."""

    lead_hours: int
    numbers: tuple[int, ...]
    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        check: str,
        subjects: Sequence[str],
        values: NDArray[np.floating],
        limit: float,
        sick: NDArray[np.bool_],
    ) -> None:
        """One row for each member with a fault: its worst subject. Arrays (member, subject)."""
        for member in np.flatnonzero(sick.any(1)):
            worst = int(np.argmax(np.where(sick[member], np.nan_to_num(values[member], nan=np.inf),
                                           -np.inf)))  # fmt: skip
            self.rows.append(
                {
                    "number": self.numbers[member],
                    "lead_hours": self.lead_hours,
                    "check": check,
                    "subject": subjects[worst],
                    "value": float(values[member, worst]),
                    "limit": limit,
                }
            )


def least_healthy(members: int, asked: int | None) -> int:
    """How many of `members` must stay healthy: as asked, by default half of them."""
    return asked or max(2, members // 2)


class MemberHealth:
    """Screens every step: `screen` gives the step of the members that are still healthy.

    A member with a fault is quarantined from that lead on, with its first reason. With `enforce`
    false, faults are recorded and nobody leaves (for models that are known to be nonsense).
    ModelError as soon as fewer than `least_members` are healthy. `result()` is the table of
    faults, HEALTH_COLUMNS, empty when all is well.
    """

    name = "health"

    def __init__(
        self,
        limits: HealthLimits | None = None,
        *,
        least_members: int = 1,
        enforce: bool = True,
    ) -> None:
        self._limits = limits or HealthLimits()
        self._least = least_members
        self._enforce = enforce
        self._rows: list[dict[str, object]] = []
        self._analysis: _Summary | None = None
        self._before: dict[int, NDArray[np.float32]] = {}
        self.quarantined: dict[int, str] = {}

    def screen(self, step: ForecastStep) -> ForecastStep:
        """Check all members of a step; the step of the healthy ones (views, no copy if all are)."""
        healthy = [i for i, number in enumerate(step.numbers) if number not in self.quarantined]
        step = _members(step, healthy)
        self._check(step)
        if not self._enforce:
            return step
        for row in self._rows:
            number = int(str(row["number"]))
            if number not in self.quarantined:
                self.quarantined[number] = describe(row)
        healthy = [i for i, number in enumerate(step.numbers) if number not in self.quarantined]
        if len(healthy) < max(self._least, 1):
            listed = "; ".join(f"{n}: {why}" for n, why in sorted(self.quarantined.items()))
            raise ModelError(
                f"{len(healthy)} healthy members are left, {self._least} are needed ({listed})",
                where=f"forecast step {step.step}",
                remedy="the cycle must not be published: check weights, analysis and precision",
            )
        return _members(step, healthy)

    def update(self, step: ForecastStep) -> None:
        """Check a step without screening it."""
        self._check(step)

    def result(self) -> pd.DataFrame:
        """Every fault so far, in order of lead."""
        table = pd.DataFrame(self._rows, columns=list(HEALTH_COLUMNS))
        return table.astype(HEALTH_COLUMNS)

    def _check(self, step: ForecastStep) -> None:
        lead_hours = int(step.lead_time / np.timedelta64(1, "h"))
        faults = _Faults(lead_hours, step.numbers)
        finite = _check_values(step, self._limits, faults)
        summary = _summarise(step)
        if self._analysis is None:
            self._analysis = summary
        else:
            _check_means(summary, self._analysis, self._limits, faults)
            _check_bands(summary, self._analysis, self._limits, faults)
            _check_jumps(step, summary, self._before, self._limits, faults)
            _check_twins(step, summary, faults, finite)
        self._before = dict(zip(step.numbers, summary.sample, strict=True))
        self._rows += faults.rows


def describe(row: dict[str, object]) -> str:
    """A fault in words."""
    return (
        f"{row['check']} of {row['subject']} is {row['value']:.4g}, limit {row['limit']:.4g}, "
        f"at +{row['lead_hours']} h"
    )


def _members(step: ForecastStep, keep: list[int]) -> ForecastStep:
    if len(keep) == len(step.numbers):
        return step
    numbers = tuple(step.numbers[i] for i in keep)
    fields = step.fields[keep]
    return ForecastStep(step.init_time, step.step, step.lead_time, numbers, step.channels, fields)


@dataclass(frozen=True)
class _Summary:
    """What the checks need of a step: means (member), band energies, a thinned copy."""

    pressure: NDArray[np.float64]
    temperature: NDArray[np.float64]
    bands: NDArray[np.float64]
    sample: NDArray[np.float32]


_THIN = 4  # every fourth row and column is enough to see jumps


def _summarise(step: ForecastStep) -> _Summary:
    return _Summary(
        pressure=_area_mean(step, "mean_sea_level_pressure"),
        temperature=_area_mean(step, "temperature_500"),
        bands=_band_energies(step),
        sample=step.fields[:, :, ::_THIN, ::_THIN].copy(),
    )


def _area_mean(step: ForecastStep, name: str) -> NDArray[np.float64]:
    weights = area_weights(LATITUDE)
    return np.asarray(plane(step, name).mean(-1, dtype=np.float64) @ weights / weights.size)


def _band_energies(step: ForecastStep) -> NDArray[np.float64]:
    """(member, band) kinetic energy at 500 hPa, m2 s-2; NaN where a wind is not finite."""
    u, v = plane(step, "u_component_of_wind_500"), plane(step, "v_component_of_wind_500")
    op = operator(*u.shape[-2:], spin=1, south_first=True, dtype="float32")
    with np.errstate(invalid="ignore", over="ignore"):
        energy = np.stack(kinetic_energy(op, u, v)).sum(0, dtype=np.float64)
    return np.stack([energy[:, low : high + 1].sum(-1) for low, high in BANDS], axis=-1)


def _check_values(step: ForecastStep, limits: HealthLimits, faults: _Faults) -> NDArray[np.bool_]:
    """Non-finite values and physical bounds; whether each member is finite throughout."""
    lowest, highest = _extremes(step.fields)
    broken = ~(np.isfinite(lowest) & np.isfinite(highest))
    faults.add("non-finite values", step.channels, broken.astype(float), 0.0, broken)
    bounds = [channel(name) for name in step.channels]
    floor = np.array([entry.minimum for entry in bounds], dtype=np.float32)
    ceiling = np.array([entry.maximum for entry in bounds], dtype=np.float32)
    shares = np.zeros(lowest.shape)
    for member, index in np.argwhere(((lowest < floor) | (highest > ceiling)) & ~broken):
        values = step.fields[member, index]
        outside = (values < floor[index]) | (values > ceiling[index])
        shares[member, index] = outside.mean()
    limit = limits.outside_share
    faults.add("share outside physical bounds", step.channels, shares, limit, shares > limit)
    return np.asarray(~broken.any(1))


def _extremes(fields: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of each map (member, channel), both while it is in the cache."""
    lowest, highest = np.empty((2, *fields.shape[:2]), dtype=np.float32)
    for place in np.ndindex(lowest.shape):
        lowest[place], highest[place] = fields[place].min(), fields[place].max()
    return lowest, highest


def _check_means(
    summary: _Summary, analysis: _Summary, limits: HealthLimits, faults: _Faults
) -> None:
    for name, values, start, drift, apart in (
        ("mean sea level pressure", summary.pressure, analysis.pressure, limits.mass_drift_pa,
         limits.mass_from_median_pa),
        ("temperature at 500 hPa", summary.temperature, analysis.temperature,
         limits.temperature_drift_k, limits.temperature_from_median_k),
    ):  # fmt: skip
        change = np.abs(values - start.mean())[:, None]
        faults.add("drift of the area mean", [name], change, drift, ~(change <= drift))
        if values.size >= 3:
            gap = np.abs(values - np.nanmedian(values))[:, None]
            faults.add("area mean from the median member", [name], gap, apart, ~(gap <= apart))


def _check_bands(
    summary: _Summary, analysis: _Summary, limits: HealthLimits, faults: _Faults
) -> None:
    reference = analysis.bands.mean(0)
    ratio = summary.bands / np.where(reference > 0, reference, np.nan)
    for index, (low, high) in enumerate(BANDS):
        if not np.isfinite(reference[index]) or reference[index] <= 0:
            continue
        values = ratio[:, index : index + 1]
        subject = [f"kinetic energy, degrees {low}-{high}"]
        floor, ceiling = limits.lowest_band_ratio[index], limits.highest_band_ratio[index]
        faults.add("blur: ratio to the analysis", subject, values, floor, values < floor)
        faults.add("noise: ratio to the analysis", subject, values, ceiling, ~(values <= ceiling))


def _check_jumps(
    step: ForecastStep,
    summary: _Summary,
    before: dict[int, NDArray[np.float32]],
    limits: HealthLimits,
    faults: _Faults,
) -> None:
    """Root mean square change of every channel against the median member's."""
    if len(step.numbers) < 3:
        return
    apart = np.stack([before[number] for number in step.numbers])
    weights = area_weights(LATITUDE)[::_THIN].astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(summary.sample, apart, out=apart)
        np.multiply(apart, apart, out=apart)
        change = np.sqrt((weights @ apart).mean(axis=2) / weights.size)
    typical = np.nanmedian(change, axis=0)
    ratio = change / np.where(typical > 0, typical, np.nan)
    limit = limits.jump_ratio
    faults.add("change since the last step, in median changes", step.channels, ratio, limit,
               ratio > limit)  # fmt: skip


def _check_twins(
    step: ForecastStep, summary: _Summary, faults: _Faults, finite: NDArray[np.bool_]
) -> None:
    """Members that repeat an earlier one to the bit."""
    twin = np.zeros((len(step.numbers), 1), dtype=bool)
    seen: dict[bytes, int] = {}
    for member in np.flatnonzero(finite).tolist():
        key = summary.sample[member].tobytes()
        first = seen.setdefault(key, member)
        if first != member:
            same = np.array_equal(step.fields[first], step.fields[member])
            twin[member] = same
    faults.add("copy of another member", ["all channels"], twin.astype(float), 0.0, twin)
