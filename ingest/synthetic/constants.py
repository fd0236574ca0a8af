"""Numbers of the made-up air, the same in every part of the generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.variables import LEVELS

GAS_CONSTANT = 287.0597  # dry air, J kg-1 K-1 (the value of the IFS)
VIRTUAL = 0.6078  # Tv = T (1 + VIRTUAL q)
EARTH_ROTATION = 7.292115e-5  # s-1
REFERENCE_HPA = 1000.0  # where the height coordinate s = ln(REFERENCE_HPA / p) is zero

LEVEL_HPA: NDArray[np.float64] = np.array(LEVELS, np.float64)
LEVEL_S: NDArray[np.float64] = np.log(REFERENCE_HPA / LEVEL_HPA)
LEVEL_HPA.flags.writeable = False
LEVEL_S.flags.writeable = False


Array = NDArray[np.floating]


def saturation_humidity(temperature: Array, pressure_hpa: Array | float | np.float32) -> Array:
    """Specific humidity (kg kg-1) of saturated air over water; Bolton (1980), equation 10."""
    vapour_hpa = 6.112 * np.exp(17.67 * (temperature - 273.15) / (temperature - 29.65))
    return 0.622 * vapour_hpa / np.maximum(pressure_hpa - 0.378 * vapour_hpa, vapour_hpa)


def season(time: np.datetime64) -> float:
    """+1 in the middle of July, -1 in the middle of January, a sine in between."""
    day = (time - time.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    return float(-np.cos(2.0 * np.pi * (day - 15.0) / 365.25))


def seconds_since_2000(time: np.datetime64) -> float:
    """Seconds from 2000-01-01 00 UTC to `time`."""
    return float((time - np.datetime64("2000-01-01")) / np.timedelta64(1, "s"))
