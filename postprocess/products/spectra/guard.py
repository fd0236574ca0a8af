"""A guard against winds whose rows run the other way than their latitude says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import DataError
from postprocess.products.spectra.energy import Operator, kinetic_energy

LARGE_SCALES = slice(1, 31)
# Divergent share of the kinetic energy in degrees 1..30: 4-6 % in analyses at 500 and 850 hPa,
# 25-51 % when the same winds are read upside down (the sum over both stays right).
PLAUSIBLE_SHARE = 0.15
_FEWEST_DEGREES = 4.0  # fewer effective degrees than this is a made-up pattern, not weather


def divergent_share(
    rotational: NDArray[np.floating], divergent: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Share of divergent in all kinetic energy of degrees 1..30, (...); 0 where there is none."""
    divergent_sum = np.asarray(divergent[..., LARGE_SCALES], dtype=np.float64).sum(-1)
    total = divergent_sum + rotational[..., LARGE_SCALES].sum(-1)
    return np.divide(divergent_sum, total, out=np.zeros_like(total), where=total > 0)


def require_row_order(
    op: Operator,
    wind: tuple[NDArray[np.floating], NDArray[np.floating]],
    energies: tuple[NDArray[np.floating], NDArray[np.floating]],
    where: str,
) -> None:
    """DataError when the winds make sense only upside down.

    `wind` is (u, v), (..., latitude, longitude) in the order of the operator, `energies` what
    `kinetic_energy` gave for it. Raised where most fields are implausibly divergent as labelled
    and plausible with the rows reversed; patterns of a few degrees only (analytic test fields) are
    let through.
    """
    rotational, divergent = (energy.reshape(-1, op.lmax + 1) for energy in energies)
    as_labelled = divergent_share(rotational, divergent)
    suspicious = (as_labelled > PLAUSIBLE_SHARE) & _is_weather(rotational + divergent)
    if 2 * np.count_nonzero(suspicious) <= as_labelled.size:
        return
    u, v = (part.reshape(-1, op.rings, op.longitudes)[suspicious, ::-1].copy() for part in wind)
    reversed_share = divergent_share(*kinetic_energy(op, u, v))
    upside_down = reversed_share < PLAUSIBLE_SHARE
    if 2 * np.count_nonzero(upside_down) > as_labelled.size:
        raise DataError(
            f"the rows run against their latitude labels: {as_labelled[suspicious].mean():.0%} of "
            f"the energy in degrees 1-30 is divergent as labelled, {reversed_share.mean():.0%} "
            "with the rows reversed",
            where=where,
            remedy="correct the latitude coordinate, or state the true order of the rows with "
            "--row-order north-south or --row-order south-north",
        )


def _is_weather(energy: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether energy is spread over several degrees (inverse participation ratio)."""
    squared = (energy**2).sum(-1)
    spread = np.divide(energy.sum(-1) ** 2, squared, out=np.zeros_like(squared), where=squared > 0)
    return np.asarray(spread > _FEWEST_DEGREES)
