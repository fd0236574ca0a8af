"""What a cycle's products are asked for: stations, events, levels, quantiles, version of a table.

Everything here can be given in the settings; what the model cannot give is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.variables import CHANNEL_NAMES, LEVELS, Variable
from postprocess.products.cyclones.thresholds import TRACKER_VERSION, TRACKER_VERSIONS
from postprocess.products.derived import Plane, planes_of

_NO_MORE_KEYS = {"extra": "forbid"}
_TO_SI: Mapping[tuple[str, str], Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    ("degC", "K"): lambda value: value + 273.15,
    ("hPa", "Pa"): lambda value: value * 100.0,
    ("kt", "m s-1"): lambda value: value * 1852.0 / 3600.0,
    ("km h-1", "m s-1"): lambda value: value / 3.6,
    ("g kg-1", "kg kg-1"): lambda value: value / 1000.0,
}


def _twice(given: Sequence[Any]) -> list[Any]:
    """What occurs more than once."""
    return sorted({entry for entry in given if given.count(entry) > 1})


@dataclass(frozen=True)
class Event:
    """`variable` (at `level_hpa`, None at the surface) above or below each of `values` in `units`.

    Units are those of the variable or degC, hPa, kt, km h-1, g kg-1. InputError for a quantity or
    level that the model does not have, and for units of something else.
    """

    __pydantic_config__: ClassVar = _NO_MORE_KEYS

    variable: str
    side: Literal["above", "below"]
    values: tuple[float, ...]
    units: str
    level_hpa: int | None = None

    def __post_init__(self) -> None:
        planes = {(p.variable.name, p.level_hpa): p for p in planes_of(CHANNEL_NAMES)}
        plane = planes.get((self.variable, self.level_hpa))
        if plane is None:
            raise InputError(
                f"no {self.variable} {_place(self.level_hpa)}",
                where=f"event {self.name}",
                remedy=_choices(planes, self.variable),
            )
        self.thresholds(plane.variable)
        wrong = [value for value in self.values if not np.isfinite(value)] + _twice(self.values)
        if wrong or not self.values:
            raise InputError(
                f"thresholds cannot be {', '.join(map(str, wrong)) or 'empty'}",
                where=f"event {self.name}",
                remedy="give at least one finite number, each once",
            )

    @property
    def name(self) -> str:
        """Stem of the output variables: wind_speed_850_above."""
        level = "" if self.level_hpa is None else f"_{self.level_hpa}"
        return f"{self.variable}{level}_{self.side}"

    def thresholds(self, variable: Variable) -> NDArray[np.float64]:
        """The values in the variable's unit; InputError for units of something else."""
        values = np.array(self.values, dtype=np.float64)
        if self.units == variable.units:
            return values
        convert = _TO_SI.get((self.units, variable.units))
        if convert is None:
            raise InputError(
                f"thresholds in {self.units!r} for a quantity in {variable.units!r}",
                where=f"event {self.name}",
                remedy=f"give them in {variable.units}",
            )
        return np.asarray(convert(values))


def _place(level_hpa: int | None) -> str:
    return "at the surface" if level_hpa is None else f"at {level_hpa} hPa"


def _choices(planes: Mapping[tuple[str, int | None], Plane], variable: str) -> str:
    """The levels of a known variable, or the variables."""
    levels = [level for name, level in planes if name == variable]
    if levels and levels != [None]:
        return f"set level_hpa to one of {', '.join(map(str, levels))}"
    if levels:
        return "leave level_hpa out"
    return f"choose from {', '.join(dict.fromkeys(name for name, _ in planes))}"


@dataclass(frozen=True)
class Station:
    """A named point; longitude in degrees east, any turn."""

    __pydantic_config__: ClassVar = _NO_MORE_KEYS

    name: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if not (-90 <= self.latitude <= 90 and -360 <= self.longitude <= 360):
            raise InputError(
                f"({self.latitude}, {self.longitude}) is no place",
                where=f"station {self.name}",
                remedy="give latitude -90..90 and longitude -180..360 in degrees",
            )


DEFAULT_EVENTS = (
    Event("2m_temperature", "below", (0.0,), "degC"),
    Event("2m_temperature", "above", (30.0,), "degC"),
    Event("10m_wind_speed", "above", (10.0, 15.0, 20.0), "m s-1"),
    Event("wind_speed", "above", (20.0,), "m s-1", level_hpa=850),
    Event("mean_sea_level_pressure", "below", (980.0,), "hPa"),
)
DEFAULT_STATIONS = (
    Station("Reading", 51.45, -0.97),
    Station("Bologna", 44.50, 11.34),
    Station("New York", 40.71, -74.01),
    Station("Nairobi", -1.29, 36.82),
    Station("Manila", 14.60, 120.98),
    Station("Sydney", -33.87, 151.21),
)


@dataclass(frozen=True)
class ProductRequest:
    """The configurable part of the products of a cycle.

    `point_quantities` are channels or wind speeds such as wind_speed_850, `spectra_levels` hPa,
    `spectra_scalars` channels, `tracker_version` a version of the tracker's table of thresholds,
    `climatology` a file or store (postprocess.products.climatology): without it no indices.
    InputError for anything that the model does not have.
    """

    __pydantic_config__: ClassVar = _NO_MORE_KEYS

    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    events: tuple[Event, ...] = DEFAULT_EVENTS
    window_hours: int = 24
    stations: tuple[Station, ...] = DEFAULT_STATIONS
    point_quantities: tuple[str, ...] = (
        "2m_temperature", "10m_wind_speed", "mean_sea_level_pressure",
    )  # fmt: skip
    spectra_levels: tuple[int, ...] = (200, 500, 850)
    spectra_scalars: tuple[str, ...] = (
        "geopotential_500", "temperature_850", "specific_humidity_700",
    )  # fmt: skip
    tracker_version: str = TRACKER_VERSION
    climatology: str | None = None

    def __post_init__(self) -> None:
        quantities = [plane.name for plane in planes_of(CHANNEL_NAMES)]
        _require("quantiles", [q for q in self.quantiles if not 0 <= q <= 1], "0 to 1, as 0.9")
        _require_known("spectra_levels", self.spectra_levels, LEVELS)
        _require_known("spectra_scalars", self.spectra_scalars, CHANNEL_NAMES)
        _require_known("point_quantities", self.point_quantities, quantities)
        _require_known("tracker_version", (self.tracker_version,), TRACKER_VERSIONS)
        for name, given in (
            ("stations", [station.name for station in self.stations]),
            ("events", [event.name for event in self.events]),
        ):
            _require(name, _twice(given), "each name once, all thresholds of an event in one")
        for name in ("quantiles", "point_quantities", "spectra_levels", "spectra_scalars"):
            _require(name, _twice(getattr(self, name)), "each once")
        for name in ("quantiles", "events", "stations", "point_quantities", "spectra_scalars"):
            _require(name, [] if getattr(self, name) else ["empty"], "at least one")
        if self.window_hours < 1:
            _require("window_hours", [self.window_hours], "a positive number of hours")

    def __str__(self) -> str:
        levels = ", ".join(map(str, self.spectra_levels))
        return (
            f"{len(self.stations)} stations, {len(self.events)} events, spectra at {levels} hPa, "
            f"tracker version {self.tracker_version} (all: mosaic-ops settings --json)"
        )


def _require(name: str, wrong: Sequence[object], want: str) -> None:
    if wrong:
        raise InputError(
            f"{name} cannot be {', '.join(map(str, wrong))}",
            where=f"products.{name}",
            remedy=f"give {want}",
        )


def _require_known(name: str, given: Sequence[object], known: Collection[object]) -> None:
    wrong = [entry for entry in given if entry not in known]
    _require(name, wrong, f"some of {', '.join(map(str, known))}")


DEFAULT_REQUEST = ProductRequest()
