"""The 82 channels of the model: names, GRIB keys, CF names, units and plausible ranges.

Order is the model's: four surface fields, then six fields on thirteen pressure levels (hPa,
ascending). Ranges are what an analysis of the real atmosphere on 0.25 degrees cannot leave, with
room to spare; they catch wrong units and wrong levels, not poor forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass

from mosaic_core.contract.errors import InputError

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)


@dataclass(frozen=True)
class Variable:
    """A field of the model. `params` are the GRIB shortNames that carry it, the best first."""

    name: str
    params: tuple[str, ...]
    levtype: str
    standard_name: str
    long_name: str
    short_name: str
    units: str
    ranges: tuple[tuple[float, float], ...]

    @property
    def on_levels(self) -> bool:
        """Whether the field is given on pressure levels."""
        return self.levtype == "pl"


@dataclass(frozen=True)
class Channel:
    """One 2-D field of the model: a variable, at `level_hpa` or at the surface (None)."""

    name: str
    variable: Variable
    level_hpa: int | None
    minimum: float
    maximum: float


_EVERY_LEVEL = len(LEVELS)
_WIND = ((-150.0, 150.0),) * _EVERY_LEVEL
_GEOPOTENTIAL = (
    (160e3, 222e3), (128e3, 178e3), (108e3, 150e3), (94e3, 131e3), (82e3, 115e3), (72e3, 102e3),
    (56e3, 80e3), (43e3, 62e3), (28e3, 48e3), (18e3, 36e3), (3e3, 21e3), (-6e3, 14e3),
    (-11e3, 8e3),
)  # fmt: skip
_TEMPERATURE = (
    (165.0, 260.0), (165.0, 260.0), (170.0, 260.0), (175.0, 265.0), (180.0, 265.0),
    (185.0, 275.0), (195.0, 290.0), (200.0, 300.0), (200.0, 310.0), (200.0, 320.0),
    (200.0, 335.0), (195.0, 340.0), (195.0, 345.0),
)  # fmt: skip
# Packing may leave -1e-6 where the air is dry; the gate has a stricter test of the sign.
_HUMIDITY = tuple(
    (-1e-6, highest)
    for highest in (3e-4, 3e-4, 3e-4, 3e-3, 3e-3, 3e-3, 8e-3, 12e-3, 18e-3, 25e-3)
    + (45e-3,) * 3
)  # fmt: skip

VARIABLES = (
    Variable("2m_temperature", ("2t",), "sfc", "air_temperature",
             "2 metre temperature", "2t", "K", ((180.0, 335.0),)),
    Variable("10m_u_component_of_wind", ("10u",), "sfc", "eastward_wind",
             "10 metre U wind component", "10u", "m s-1", ((-80.0, 80.0),)),
    Variable("10m_v_component_of_wind", ("10v",), "sfc", "northward_wind",
             "10 metre V wind component", "10v", "m s-1", ((-80.0, 80.0),)),
    Variable("mean_sea_level_pressure", ("msl",), "sfc", "air_pressure_at_mean_sea_level",
             "Mean sea level pressure", "msl", "Pa", ((85e3, 110e3),)),
    Variable("geopotential", ("z", "gh"), "pl", "geopotential",
             "Geopotential", "z", "m2 s-2", _GEOPOTENTIAL),
    Variable("specific_humidity", ("q",), "pl", "specific_humidity",
             "Specific humidity", "q", "kg kg-1", _HUMIDITY),
    Variable("temperature", ("t",), "pl", "air_temperature",
             "Temperature", "t", "K", _TEMPERATURE),
    Variable("u_component_of_wind", ("u",), "pl", "eastward_wind",
             "U component of wind", "u", "m s-1", _WIND),
    Variable("v_component_of_wind", ("v",), "pl", "northward_wind",
             "V component of wind", "v", "m s-1", _WIND),
    Variable("vertical_velocity", ("w",), "pl", "lagrangian_tendency_of_air_pressure",
             "Vertical velocity (omega)", "w", "Pa s-1", ((-30.0, 30.0),) * _EVERY_LEVEL),
)  # fmt: skip


def _channels_of(variable: Variable) -> tuple[Channel, ...]:
    if not variable.on_levels:
        return (Channel(variable.name, variable, None, *variable.ranges[0]),)
    return tuple(
        Channel(f"{variable.name}_{level}", variable, level, *bounds)
        for level, bounds in zip(LEVELS, variable.ranges, strict=True)
    )


CHANNELS = tuple(channel for variable in VARIABLES for channel in _channels_of(variable))
CHANNEL_NAMES = tuple(channel.name for channel in CHANNELS)
STATIC_VARIABLES = ("geopotential_at_surface", "land_sea_mask", "soil_type")

_BY_NAME = {channel.name: channel for channel in CHANNELS}
_VARIABLE_BY_NAME = {variable.name: variable for variable in VARIABLES}


def channel(name: str) -> Channel:
    """The channel called `name` ('geopotential_500'); InputError when there is none."""
    if name not in _BY_NAME:
        raise InputError(
            f"unknown channel {name!r}",
            remedy="channels are named like 2m_temperature or geopotential_500",
        )
    return _BY_NAME[name]


def variable(name: str) -> Variable:
    """The variable called `name` ('geopotential'); InputError when there is none."""
    if name not in _VARIABLE_BY_NAME:
        raise InputError(
            f"unknown variable {name!r}", remedy=f"choose one of {', '.join(_VARIABLE_BY_NAME)}"
        )
    return _VARIABLE_BY_NAME[name]
