"""Is a cycle there, whole, and where first? Asked of all mirrors at once.

Ready means: the index holds each of the 82 wanted fields once, of this cycle, and every one lies
inside the data object.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingest.index import (
    ByteRange,
    IndexRow,
    inventory,
    merge_ranges,
    parse_index,
    static_rows,
)
from ingest.sources import AnalysisLocation, Source, analysis_files
from ingest.transfer import (
    Mirror,
    MirrorTrouble,
    ObjectIdentity,
    TransferPolicy,
    open_mirror,
    public,
)
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError
from mosaic_core.contract.files import write_atomic

# Asking for up to this many unwanted bytes is cheaper than one more request: of a real step-0
# file 65.4 MB come in 20 requests instead of 63.9 MB in 24.
MERGE_GAP_BYTES = 512 * 1024
# One look at a mirror: a second try if it stumbles, then it is asked again at the next poll.
_ONE_LOOK = TransferPolicy(total_seconds=60.0, attempts=2)

Clock = Callable[[], datetime]
Answers = dict[str, SourceError | DataError]


@dataclass(frozen=True)
class Inventory:
    """A complete analysis on a mirror: its object's version, its index, the rows we want.

    `statics` are rows of static fields that come with it, if any.
    """

    location: AnalysisLocation
    identity: ObjectIdentity
    index: bytes
    rows: dict[str, IndexRow]
    statics: dict[str, IndexRow]

    @property
    def spans(self) -> tuple[ByteRange, ...]:
        """The byte ranges to ask for."""
        return merge_ranges([*self.rows.values(), *self.statics.values()], MERGE_GAP_BYTES)


async def take_inventory(mirror: Mirror, location: AnalysisLocation) -> Inventory:
    """What the mirror holds of this cycle.

    Raises NotYetAvailable when the file, its index or a field is not there yet, DataError when
    the index is not this cycle's, SourceError when the mirror is out.
    """
    identity = await mirror.identity(location.data_url)
    index = await mirror.read(location.index_url)
    rows = parse_index(index, public(location.index_url))
    wanted = inventory(rows, location, identity.size)
    statics = static_rows(rows, identity.size) if location.step == 0 else {}
    return Inventory(location, identity, index, wanted, statics)


def is_ready(
    cycle: Cycle, source: Source, policy: TransferPolicy | None = None, *, step: int = 0
) -> bool:
    """Whether the source holds all 82 fields of the cycle; False means not yet.

    Raises SourceError when the source is out or cannot have the cycle, DataError when what it
    has is wrong.
    """
    try:
        asyncio.run(_look(cycle, source, policy or TransferPolicy(), step))
    except NotYetAvailable:
        return False
    return True


async def _look(cycle: Cycle, source: Source, policy: TransferPolicy, step: int) -> Inventory:
    location = analysis_files(cycle, source, step=step)
    async with open_mirror(source.root, policy) as mirror:
        return await take_inventory(mirror, location)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def wait_until_ready(
    cycle: Cycle,
    sources: Sequence[Source],
    *,
    deadline: datetime,
    poll_seconds: float = 90.0,
    clock: Clock = _utc_now,
    policy: TransferPolicy | None = None,
    sightings: Path | None = None,
    step: int = 0,
) -> Source:
    """The first of `sources` to hold the whole cycle; all are asked, each at its own pace.

    Pauses vary by a fifth, so that pollers spread. A mirror that refuses for good is left out; one
    that fails for now is asked again. `sightings` is a JSON file in which the moment of the first
    complete sight is kept per cycle and mirror (`first_seen`).

    Raises NotYetAvailable at the deadline with each source's last answer, SourceError at once
    when no source can have the cycle.
    """
    watch = _Watch(cycle, step, deadline, poll_seconds, clock, policy or _ONE_LOOK, {})
    found = asyncio.run(watch.first_of(sources))
    if sightings is not None:
        _note(sightings, cycle, found, clock())
    return found


@dataclass(frozen=True)
class _Watch:
    """What all pollers of one wait share; `answers` holds the last answer of each source."""

    cycle: Cycle
    step: int
    deadline: datetime
    poll_seconds: float
    clock: Clock
    policy: TransferPolicy
    answers: Answers

    async def first_of(self, sources: Sequence[Source]) -> Source:
        pollers = {asyncio.create_task(self._poll(source)): source for source in sources}
        pending = set(pollers)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                ready = [pollers[task] for task in pollers if task in done and task.result()]
                if ready:
                    return ready[0]
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        raise self._refusal()

    async def _poll(self, source: Source) -> bool:
        """True once the source is complete, False when it is out or the time is over."""
        opens = self.cycle.datetime + timedelta(minutes=source.earliest_minutes)
        await asyncio.sleep(max(0.0, (min(opens, self.deadline) - self.clock()).total_seconds()))
        while True:
            try:
                await _look(self.cycle, source, self.policy, self.step)
            except (NotYetAvailable, MirrorTrouble, DataError) as answer:
                self.answers[source.name] = answer
            except SourceError as refusal:
                self.answers[source.name] = refusal
                return False
            else:
                return True
            pause = self.poll_seconds * random.uniform(0.8, 1.2)
            if self.clock() + timedelta(seconds=pause) > self.deadline:
                return False
            await asyncio.sleep(pause)

    def _refusal(self) -> SourceError:
        told = "; ".join(f"{name}: {answer.what}" for name, answer in self.answers.items())
        hopeful = any(
            isinstance(answer, NotYetAvailable | MirrorTrouble | DataError)
            for answer in self.answers.values()
        )
        kind = NotYetAvailable if hopeful else SourceError
        return kind(
            f"no source holds the whole cycle ({told})",
            where=f"cycle {self.cycle}",
            remedy="try later, or start from the cycle before",
        )


def _note(sightings: Path, cycle: Cycle, source: Source, moment: datetime) -> None:
    held = _read_sightings(sightings)
    held.setdefault(cycle.id, {}).setdefault(source.name, moment.isoformat(timespec="seconds"))
    write_atomic(sightings, (json.dumps(held, indent=1, sort_keys=True) + "\n").encode())


def _read_sightings(sightings: Path) -> dict[str, dict[str, str]]:
    return dict(json.loads(sightings.read_text())) if sightings.exists() else {}


def first_seen(sightings: Path, cycle: Cycle, source: str) -> datetime | None:
    """When the cycle was first seen complete on that source, if anybody waited for it."""
    text = _read_sightings(sightings).get(cycle.id, {}).get(source)
    return datetime.fromisoformat(text) if text else None
