"""A tiny stand-in for flows.stages: the same doors, small JSON files, faults on request.

A mirror is the folder `mirror` of the data root: an empty file per cycle means that the analysis
is there, the text in it is a fault to raise. `ledger.txt` gets one line per piece of work done, so
that work done twice shows.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

from flows.progress import Reporter
from flows.receipts import recorded
from flows.settings import Settings
from ingest.sources import Source, source_named
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError
from mosaic_core.contract.files import write_json_atomic
from postprocess.manifest import Manifest, digest, run_path
from postprocess.objects.root import MUTABLE, open_root
from postprocess.pointer import LATEST, advance, current_key
from postprocess.publish import published_cycle

STATE = "state.json"
REFUSED = "refused: "
"""A fault that begins so is found by the gate, any other in the fetch."""

STEP_SECONDS = float(os.environ.get("TOY_STEP_SECONDS", "0.001"))


def ledger(settings: Settings) -> list[str]:
    """Every piece of work done so far, in order."""
    path = settings.data_root / "ledger.txt"
    return path.read_text().splitlines() if path.exists() else []


def note(settings: Settings, line: str) -> None:
    """One atomic line in the ledger."""
    settings.data_root.mkdir(parents=True, exist_ok=True)
    with (settings.data_root / "ledger.txt").open("a") as file:
        file.write(line + "\n")


def offer(settings: Settings, *cycles: Cycle, fault: str = "") -> None:
    """Put the analyses of `cycles` on the mirror."""
    for cycle in cycles:
        path = settings.data_root / "mirror" / cycle.id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fault)


def reference(_settings: Settings) -> None:
    """What analyses are compared with: nothing."""


def wait(cycle: Cycle, settings: Settings, report: Reporter) -> str:
    """Wait until a mirror has the analysis."""
    path = settings.data_root / "mirror" / cycle.id
    with recorded("wait", cycle, settings.receipts, report, f"wait for {cycle}"):
        seconds = float(os.environ.get("TOY_WAIT_SECONDS", settings.deadline_hours))
        give_up = time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > give_up:
                raise NotYetAvailable("no mirror has it", where=f"cycle {cycle}")
            time.sleep(min(settings.poll_seconds, 0.2))
    return "toy"


def fetch(cycle: Cycle, source: str, settings: Settings, report: Reporter) -> Path:
    """Fetch the analysis; the mirror file may hold a fault."""
    with recorded("fetch", cycle, settings.receipts, report, f"fetch {cycle}"):
        fault = (settings.data_root / "mirror" / cycle.id).read_text()
        if fault.startswith("outage"):
            offer(settings, cycle)  # the next attempt finds it well
            raise SourceError("the mirror answered 503", where=source, remedy="wait")
        if fault and not fault.startswith(REFUSED):
            raise DataError(fault, where=f"cycle {cycle}", remedy="look at the file")
        path = settings.downloads / cycle.id / "manifest.json"
        if not path.exists():
            write_json_atomic(path, {"cycle": cycle.id})
            note(settings, f"fetch {cycle.id}")
    return path


def archive(cycle: Cycle, manifest: Path, settings: Settings, report: Reporter) -> None:
    """Append to the archive."""
    with recorded("gate", cycle, settings.receipts, report, f"check {cycle}"):
        fault = (settings.data_root / "mirror" / cycle.id).read_text()
        if fault.startswith(REFUSED):
            raise DataError(fault, where=f"cycle {cycle}", remedy="look at the file")
    with recorded("archive", cycle, settings.receipts, report, f"archive {cycle}"):
        write_json_atomic(settings.archive / f"{cycle.id}.json", {"from": str(manifest)})
        note(settings, f"archive {cycle.id}")


def fill(cycle: Cycle, settings: Settings, report: Reporter) -> str:
    """Keep the 6-h forecast valid at `cycle`, if `offer_forecast` put it on the mirror."""
    with recorded("fill", cycle, settings.receipts, report, f"fill {cycle}"):
        kept = settings.fills / f"{cycle.id}.json"
        if not kept.exists() and not _forecast_of(cycle, settings).exists():
            raise SourceError("no mirror has the 6-h forecast", where=f"cycle {cycle}")
        write_json_atomic(kept, {"stands in for": cycle.id})
        note(settings, f"fill {cycle.id}")
    return "toy"


def offer_forecast(settings: Settings, cycle: Cycle) -> None:
    """Put the 6-h forecast that is valid at `cycle` on the mirror."""
    _forecast_of(cycle, settings).parent.mkdir(parents=True, exist_ok=True)
    _forecast_of(cycle, settings).touch()


def _forecast_of(cycle: Cycle, settings: Settings) -> Path:
    return settings.data_root / "mirror" / f"{cycle.id}-step6"


def held_fills(settings: Settings) -> frozenset[Cycle]:
    """The times for which a stand-in is kept."""
    return frozenset(Cycle.parse(path.stem) for path in settings.fills.glob("*.json"))


def missing_analyses(cycle: Cycle, settings: Settings) -> list[Cycle]:
    """Analyses of the history that are not archived."""
    variant = settings.model_variant
    history = cycle.history(variant.history_count, variant.history_spacing_hours)
    return [each for each in history if not (settings.archive / f"{each.id}.json").exists()]


def initial_state(cycle: Cycle, settings: Settings, report: Reporter) -> Path:
    """Collect the history."""
    with recorded("initial_state", cycle, settings.receipts, report, f"initial state {cycle}"):
        path = settings.staging / cycle.id / STATE
        write_json_atomic(path, {"cycle": cycle.id})
    return path


def rollout(cycle: Cycle, state: Path, settings: Settings, report: Reporter) -> Path:
    """Step through the forecast; goes on where a killed run stopped."""
    staged = settings.staging / cycle.id
    with recorded("rollout", cycle, settings.receipts, report, f"rollout {cycle}") as advance:
        for step in range(1, settings.steps + 1):
            if not (staged / f"step{step}").exists():
                time.sleep(STEP_SECONDS)
                write_json_atomic(staged / f"step{step}", {"step": step})
                note(settings, f"step {cycle.id} {step} {os.getpid()}")
            advance(step, settings.steps, f"{settings.members} members")
    return staged


def published_address(cycle: Cycle, settings: Settings) -> str | None:
    """The publication, if there is one."""
    manifest = published_cycle(settings.published, cycle)
    return f"{settings.published}/{manifest.path}" if manifest else None


def settle(cycle: Cycle, settings: Settings) -> None:
    """Nothing follows the pointers of the toys."""


def publish(cycle: Cycle, staged: Path, settings: Settings, report: Reporter) -> str:
    """Make it visible; latest.json never goes backwards."""
    with recorded("publish", cycle, settings.receipts, report, f"publish {cycle}"):
        name = f"run{os.getpid()}-{settings.variant}-{settings.members}x{settings.lead_hours}"
        manifest = Manifest(
            cycle=cycle.id,
            run_id=name,
            path=run_path(cycle, name),
            members=settings.members,
            lead_hours=settings.lead_hours,
            created_at=dt.datetime.now(dt.UTC),
            provenance={"model_variant": settings.variant},
            objects=(),
        )
        root = open_root(settings.published)
        root.write(f"{manifest.path}/manifest.json", manifest.to_bytes(), cache=MUTABLE)
        for key in (LATEST, current_key(cycle)):
            standing = advance(root, key, manifest, digest(manifest.to_bytes()))
        note(settings, f"publish {cycle.id}")
    return f"{settings.published}/{standing.path}"


def history(cycle: Cycle, settings: Settings) -> tuple[Cycle, ...]:
    """The analyses a cycle starts from, oldest first."""
    variant = settings.model_variant
    return cycle.history(variant.history_count, variant.history_spacing_hours)


def mirror(name: str) -> Source:
    """A mirror by its name, or NAME=ADDRESS."""
    label, _, address = name.partition("=")
    return Source(label, address) if address else source_named(name)
