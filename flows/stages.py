"""The stages of a cycle as plain functions: take addresses, leave addresses, safe to run again.

Each keeps a receipt and shows what it does. None holds more than a few forecast steps in memory,
and none knows whether Prefect called it.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from flows.ensemble import run_ensemble
from flows.progress import Advance, Reporter
from flows.receipts import recorded
from flows.settings import Settings
from flows.storms import recorded_attributes, storm_attributes
from ingest.admission import accept, examine
from ingest.analysis import build_analysis, incoming_statics
from ingest.archive import archived_times
from ingest.fetch import MANIFEST, fetch_analysis, verified_manifest, wait_until_ready
from ingest.gate.reference import Reference
from ingest.gate.verdict import Outcome, told
from ingest.initial_state import ANALYSIS, GapPolicy
from ingest.initial_state import initial_state as collect_history
from ingest.intake import take_in
from ingest.sources import Source, source_named
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from postprocess.product_store import write_product
from postprocess.publish import publish as publish_run
from postprocess.publish import published_cycle
from postprocess.publish import settle as settle_run

STATE = "initial_state.zarr"


def published_address(cycle: Cycle, settings: Settings) -> str | None:
    """Where readers find the cycle, or None before it is published."""
    manifest = published_cycle(settings.published, cycle)
    return f"{settings.published}/{manifest.path}" if manifest else None


def settle(cycle: Cycle, settings: Settings) -> None:
    """Finish what a publisher of the cycle that was killed left undone after its pointer."""
    settle_run(settings.published, cycle)


def missing_analyses(cycle: Cycle, settings: Settings) -> tuple[Cycle, ...]:
    """The analyses this cycle starts from that the archive does not hold, oldest first."""
    held = {Cycle.from_datetime64(time) for time in archived_times(settings.archive)}
    return tuple(needed for needed in history(cycle, settings) if needed not in held)


def held_fills(settings: Settings) -> frozenset[Cycle]:
    """The times for which a 6-h forecast that may stand in for the analysis is kept."""
    return frozenset(map(Cycle.from_datetime64, archived_times(settings.fills)))


def history(cycle: Cycle, settings: Settings) -> tuple[Cycle, ...]:
    """The analyses this cycle starts from, oldest first."""
    variant = settings.model_variant
    return cycle.history(variant.history_count, variant.history_spacing_hours)


def mirror(text: str) -> Source:
    """A mirror by its name, or NAME=ADDRESS of anything that is laid out like ECMWF's."""
    return source_named(text)


def wait(cycle: Cycle, settings: Settings, report: Reporter) -> str:
    """Wait for the analysis of `cycle`; the first of the settings' mirrors that has it."""
    if (held := verified_manifest(settings.downloads / cycle.id, cycle)) is not None:
        return held.source
    with _recorded("wait", cycle, settings, report, f"waiting for the analysis of {cycle}"):
        mirrors = {mirror(name): name for name in settings.mirrors}
        deadline = cycle.datetime + dt.timedelta(hours=settings.deadline_hours)
        ready = wait_until_ready(
            cycle,
            list(mirrors),
            deadline=deadline,
            poll_seconds=settings.poll_seconds,
            sightings=settings.data_root / "sightings.json",
        )
        return mirrors[ready]


def fetch(cycle: Cycle, source: str, settings: Settings, report: Reporter) -> Path:
    """Fetch the 82 fields of the analysis; the folder they lie in, with their manifest."""
    folder = settings.downloads / cycle.id
    if verified_manifest(folder, cycle) is not None:
        return folder
    with _recorded("fetch", cycle, settings, report, f"fetching {cycle}") as advance:
        megabytes = 1_000_000
        fetch_analysis(
            cycle,
            mirror(source),
            folder,
            progress=lambda done, total: advance(done // megabytes, total // megabytes, "MB"),
        )
    return folder


def archive(cycle: Cycle, folder: Path, settings: Settings, report: Reporter) -> str:
    """Decode, regrid, judge and archive a fetched analysis; the digest of its values.

    An analysis that the gate refuses, or that cannot be decoded, is fetched anew next time.
    """
    title = f"regridding {cycle} to 1.5 degrees, checking it"
    with _recorded("gate", cycle, settings, report, title), _fetched_anew_if_refused(folder):
        analysis = build_analysis(FetchManifest.read(folder / MANIFEST), folder)
        statics = incoming_statics(folder)
        known = reference(settings)
        verdict = examine(settings.archive, analysis, known, static_fields=statics)
        verdict.require(f"analysis of {cycle} from {analysis.attrs['source']}")
    for finding in verdict.of(Outcome.WARN):
        report.say(f"warning, analysis of {cycle}: {told(finding)}")
    with _recorded("archive", cycle, settings, report, f"archiving {cycle}"):
        return accept(settings.archive, analysis, verdict).sha256


@contextmanager
def _fetched_anew_if_refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        (folder / MANIFEST).unlink()
        raise


def fill(cycle: Cycle, settings: Settings, report: Reporter) -> str:
    """Get the 6-h forecast valid at `cycle`, which may stand in for its analysis; its source.

    It is fetched from the settings' mirrors in turn, judged like an analysis, and kept in an
    archive of its own. Raises SourceError or DataError naming each mirror's answer.
    """
    with _recorded("fill", cycle, settings, report, f"fetching the 6-h forecast valid at {cycle}"):
        taken = take_in(
            cycle,
            [mirror(name) for name in settings.mirrors],
            downloads=settings.downloads,
            archive=settings.archive,
            fills=settings.fills,
            reference=reference(settings),
        )
    return taken.source


def reference(settings: Settings) -> Reference:
    """The statistics and static fields of the model, which analyses are compared with.

    ModelError when there are no weights.
    """
    return Reference.load(settings.weights, settings.variant)


def initial_state(cycle: Cycle, settings: Settings, report: Reporter) -> Path:
    """Collect what the forecast starts from, and the storms there are; the address of the store.

    The storms are those that an earlier attempt found: the run keeps its name.
    """
    path = settings.staging / cycle.id / STATE
    with _recorded("initial_state", cycle, settings, report, "collecting the initial state"):
        variant = settings.model_variant
        state = collect_history(
            cycle,
            settings.archive,
            variant.history_count,
            variant.history_spacing_hours,
            fills=settings.fills,
            policy=GapPolicy(forecast_fills=settings.forecast_fills),
        )
        state.attrs |= recorded_attributes(path) or storm_attributes(
            cycle,
            [mirror(name) for name in settings.mirrors],
            settings.downloads / cycle.id,
            report.say,
        )
        write_product(path, state, {"title": f"Initial state of {cycle}"})
    for time, origin in zip(state["time"].values, state["origin"].values, strict=True):
        if origin != ANALYSIS:
            report.say(f"warning, {cycle}: {Cycle.from_datetime64(time)} is a {origin}")
    return path


def rollout(cycle: Cycle, state: Path, settings: Settings, report: Reporter) -> Path:
    """Run the ensemble, its products and figures; the folder of finished, unpublished stores.

    The folder is named by everything that decides its bits. A complete one is used as it is; in
    an incomplete one the stored leads stay, and the model goes on from its last restart state.
    """
    title = f"{settings.members} members, {settings.steps} steps"

    def finishing() -> AbstractContextManager[Advance]:
        return _recorded("products", cycle, settings, report, "finishing products and figures")

    with _recorded("rollout", cycle, settings, report, title) as advance:
        return run_ensemble(cycle, state, settings, advance, finishing)


def publish(cycle: Cycle, staged: Path, settings: Settings, report: Reporter) -> str:
    """Make a finished run visible, the pointer last; the address where readers find it."""
    with _recorded("publish", cycle, settings, report, f"publishing {cycle}"):
        pointer = publish_run(staged, settings.published, cycle=cycle, run_id=staged.name)
    shutil.rmtree(settings.staging / cycle.id, ignore_errors=True)
    return f"{settings.published}/{pointer.path}"


def _recorded(
    stage: str, cycle: Cycle, settings: Settings, report: Reporter, title: str
) -> AbstractContextManager[Advance]:
    return recorded(stage, cycle, settings.receipts, report, title)
