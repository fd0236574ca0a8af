"""The history of analyses that a forecast starts from, or a refusal that names what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ingest.archive import archived_times, read_analysis
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError
from mosaic_core.contract.schema import INITIAL_STATE


def initial_state(
    cycle: Cycle, archive: Path, history_count: int, history_spacing_hours: int
) -> xr.Dataset:
    """The states ending at `cycle`, oldest first: INITIAL_STATE schema, in memory.

    Coordinate `provenance` (time) holds the JSON record of each. Raises ArchiveError naming
    every time that is missing and the commands that fetch them.
    """
    slots = cycle.history(history_count, history_spacing_hours)
    _require_all(slots, archive)
    states = [read_analysis(archive, slot.init_time) for slot in slots]
    state = xr.concat(states, dim="time", join="exact", combine_attrs="drop_conflicts")
    return INITIAL_STATE.validate(state, where=f"initial state of {cycle}")


def _require_all(slots: tuple[Cycle, ...], archive: Path) -> None:
    held = archived_times(archive)
    missing = [slot for slot in slots if not np.isin(slot.init_time, held)]
    if missing:
        commands = "; ".join(f"mosaic-ops ingest {slot}" for slot in missing)
        raise ArchiveError(
            f"{len(missing)} of {len(slots)} analyses are missing: {', '.join(map(str, missing))}",
            where=str(archive),
            remedy=f"fetch them: {commands}",
        )
