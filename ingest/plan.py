"""Where each cycle of a window comes from, or why from nowhere. Tables only; no byte is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest.sources import ECMWF_MIRRORS, Completeness, Source, analysis_files, era_of
from ingest.stores import WEATHERBENCH, StoreSource
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, SourceError

# Bytes that travel for one analysis: 82 messages in merged ranges of a real 50r1 file (with `z`),
# the same with `gh` before it, and 82 float32 planes of 240 x 121 from a store.
_BYTES_Z, _BYTES_GH, _BYTES_STORE = 65_400_000, 59_200_000, 9_525_120


@dataclass(frozen=True)
class Availability:
    """What is known of one cycle: sources that have it, `bytes` from the first, and reasons.

    `proven` is False where only the index of the cycle itself can tell. `reasons` maps each
    source that has not got it to why.
    """

    cycle: Cycle
    sources: tuple[str, ...]
    proven: bool
    bytes: int
    reasons: dict[str, str]


def whereabouts(
    cycle: Cycle,
    now: datetime,
    mirrors: Sequence[Source] = ECMWF_MIRRORS,
    stores: Sequence[StoreSource] = WEATHERBENCH,
) -> Availability:
    """Where `cycle` can come from at the moment `now` (aware), by the tables of eras and stores.

    Fresh cycles are cheapest from the first mirror; older ones from those that keep an archive.
    """
    reasons = {mirror.name: _why_not(cycle, mirror, now) for mirror in mirrors}
    found = [name for name, reason in reasons.items() if not reason]
    size = _mirror_bytes(cycle) if found else _BYTES_STORE
    reasons |= {store.name: "" if store.holds(cycle) else _span(store) for store in stores}
    held = [store.name for store in stores if not reasons[store.name]]
    available = (*found, *held)
    proven = bool(held) or not found or era_of(cycle).completeness is Completeness.YES
    told = {name: reason for name, reason in reasons.items() if reason}
    return Availability(cycle, available, proven, size if available else 0, told)


def _why_not(cycle: Cycle, mirror: Source, now: datetime) -> str:
    opens = cycle.datetime + timedelta(minutes=mirror.earliest_minutes)
    if now < opens:
        return f"expected from {opens:%Y-%m-%dT%H:%M}Z"
    if mirror.keep_hours is not None and now - cycle.datetime > timedelta(hours=mirror.keep_hours):
        return f"keeps {mirror.keep_hours} h only"
    try:
        analysis_files(cycle, mirror)
    except SourceError as refusal:
        return refusal.what
    return ""


def _mirror_bytes(cycle: Cycle) -> int:
    return _BYTES_Z if "z" in era_of(cycle).geopotential else _BYTES_GH


def _span(store: StoreSource) -> str:
    return f"holds {store.first} to {store.last}"


def window(start: Cycle, end: Cycle, step_hours: int = 6) -> Iterator[Cycle]:
    """The cycles from `start` to `end`, both included.

    InputError when they are in disorder and for a spacing that is not a multiple of 6 h.
    """
    if step_hours < 6 or step_hours % 6:
        raise InputError(f"{step_hours} h is not a multiple of 6 h", remedy="--every 6 or 24")
    if end < start:
        raise InputError(
            f"the window ends ({end}) before it starts ({start})", remedy="exchange them"
        )
    cycle = start
    while cycle <= end:
        yield cycle
        cycle = cycle.shift(step_hours)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring cycles with the same sources and reasons."""

    first: Cycle
    last: Cycle
    count: int
    availability: Availability


def stretches(rows: Sequence[Availability]) -> tuple[Stretch, ...]:
    """A window's rows joined where nothing but the cycle differs."""
    joined: list[Stretch] = []
    for row in rows:
        last = joined[-1] if joined else None
        if last and _same(last.availability, row):
            joined[-1] = Stretch(last.first, row.cycle, last.count + 1, last.availability)
        else:
            joined.append(Stretch(row.cycle, row.cycle, 1, row))
    return tuple(joined)


def _same(a: Availability, b: Availability) -> bool:
    return (a.sources, a.proven, a.bytes, a.reasons) == (b.sources, b.proven, b.bytes, b.reasons)
