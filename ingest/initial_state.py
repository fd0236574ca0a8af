"""The history of analyses that a forecast starts from, or a refusal that names what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from ingest.archive import archived_times, read_analysis
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError
from mosaic_core.contract.schema import INITIAL_STATE

ANALYSIS, FORECAST = "analysis", "6-h forecast"
"""Labels of the slots."""


@dataclass(frozen=True)
class GapPolicy:
    """What may stand in for a missing analysis: at most `forecast_fills` slots by the 6-h forecast
    valid then, the newest slot only if `fill_newest`.
    """

    forecast_fills: int = 1
    fill_newest: bool = False


@dataclass(frozen=True)
class Slot:
    """One time of the history and the archive it comes from; `origin` is its label."""

    cycle: Cycle
    store: Path
    origin: str


def initial_state(
    cycle: Cycle,
    archive: Path,
    history_count: int,
    history_spacing_hours: int,
    *,
    fills: Path | None = None,
    policy: GapPolicy | None = None,
) -> xr.Dataset:
    """The states ending at `cycle`, oldest first: INITIAL_STATE schema, in memory.

    A missing analysis is taken from `fills` (see `ingest.intake.take_in`) as far as the policy
    allows. Coordinates along time: `origin`, 'analysis' or '6-h forecast'; `provenance`, the JSON
    record of each. The attribute `slots` tells both in one line. Raises ArchiveError naming every
    time that is missing and the commands that fetch them.
    """
    wanted = cycle.history(history_count, history_spacing_hours)
    slots = choose_slots(wanted, archive, fills, policy or GapPolicy())
    states = [_labelled(slot) for slot in slots]
    state = xr.concat(states, dim="time", join="exact", combine_attrs="drop_conflicts")
    state.attrs["slots"] = "; ".join(
        _told(slot, one) for slot, one in zip(slots, states, strict=True)
    )
    return INITIAL_STATE.validate(state, where=f"initial state of {cycle}")


def choose_slots(
    wanted: Sequence[Cycle], archive: Path, fills: Path | None, policy: GapPolicy
) -> tuple[Slot, ...]:
    """Where each time comes from, oldest first; ArchiveError when the policy leaves a gap."""
    held = archived_times(archive)
    missing = [cycle for cycle in wanted if not np.isin(cycle.init_time, held)]
    filled = _fillable(missing, wanted[-1], fills, policy)
    gaps = [cycle for cycle in missing if cycle not in filled]
    if gaps:
        raise _refusal(wanted, gaps, archive, policy)
    return tuple(
        Slot(cycle, fills, FORECAST) if fills and cycle in filled
        else Slot(cycle, archive, ANALYSIS)
        for cycle in wanted
    )  # fmt: skip


def _fillable(
    missing: Sequence[Cycle], newest: Cycle, fills: Path | None, policy: GapPolicy
) -> tuple[Cycle, ...]:
    """The missing cycles that may and can be filled; none when that would be too many."""
    if fills is None or len(missing) > policy.forecast_fills:
        return ()
    held = archived_times(fills)
    return tuple(
        cycle
        for cycle in missing
        if np.isin(cycle.init_time, held) and (policy.fill_newest or cycle != newest)
    )


def _refusal(
    wanted: Sequence[Cycle], gaps: Sequence[Cycle], archive: Path, policy: GapPolicy
) -> ArchiveError:
    commands = "; ".join(f"mosaic-ops ingest {cycle}" for cycle in gaps)
    fillable = len(gaps) <= policy.forecast_fills and (policy.fill_newest or wanted[-1] not in gaps)
    hint = " (with --fill the 6-h forecast valid then stands in)" if fillable else ""
    return ArchiveError(
        f"{len(gaps)} of {len(wanted)} analyses are missing: {', '.join(map(str, gaps))}",
        where=str(archive),
        remedy=f"fetch them: {commands}{hint}",
    )


def _labelled(slot: Slot) -> xr.Dataset:
    state = read_analysis(slot.store, slot.cycle.init_time)
    return state.assign_coords(origin=("time", np.array([slot.origin], dtype=object)))


def _told(slot: Slot, state: xr.Dataset) -> str:
    record = json.loads(str(state["provenance"].values[0]))
    return f"{slot.cycle} {slot.origin} from {record.get('source', 'unknown')}"
