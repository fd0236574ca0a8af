"""The variants of the model: step, history and spacing, as pure numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mosaic_core.contract.errors import InputError


@dataclass(frozen=True)
class Variant:
    """`history_count` states `history_spacing_hours` apart give the state `step_hours` later."""

    name: str
    step_hours: int
    history_count: int
    history_spacing_hours: int

    def lead_time(self, step: int) -> np.timedelta64:
        """Lead time of an integer step, timedelta64[ns]."""
        return np.timedelta64(step * self.step_hours, "h").astype("timedelta64[ns]")

    def steps_for(self, hours: int) -> int:
        """Steps needed to reach a lead of `hours`; InputError unless it is a whole number."""
        steps, rest = divmod(hours, self.step_hours)
        if rest or steps < 1:
            raise InputError(
                f"a lead of {hours} h is not a whole number of {self.step_hours}-h steps",
                where=f"variant {self.name}",
                remedy=f"choose a positive multiple of {self.step_hours} h",
            )
        return steps


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("hres", step_hours=6, history_count=4, history_spacing_hours=6),
        Variant("era5", step_hours=24, history_count=2, history_spacing_hours=24),
        Variant("mini", step_hours=6, history_count=4, history_spacing_hours=6),
    )
}


def variant(name: str) -> Variant:
    """The variant of that name; InputError names the ones that exist."""
    if name not in VARIANTS:
        raise InputError(f"unknown variant {name!r}", remedy=f"choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
