"""One cycle from whichever source has it into the archive: fetch, build, gate, append."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from ingest.admission import admit, examine
from ingest.analysis import build_analysis
from ingest.archive import provenance
from ingest.correction import correct_analysis
from ingest.fetch import MANIFEST, Progress, fetch_analysis
from ingest.gate.reference import Reference
from ingest.gate.verdict import Verdict
from ingest.sources import Source
from ingest.stores import StoreSource, read_store
from ingest.transfer import TransferPolicy
from mosaic_core.contract.artifacts import StoreRef
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError


@dataclass(frozen=True)
class Intake:
    """What came of it: the archived analysis, where from, and its verdict (None if held before)."""

    store: StoreRef
    source: str
    verdict: Verdict | None


def take_in(
    cycle: Cycle,
    sources: Sequence[Source | StoreSource],
    *,
    downloads: Path,
    archive: Path,
    reference: Reference | None = None,
    correct: str | None = None,
    progress: Progress | None = None,
    policy: TransferPolicy | None = None,
) -> Intake:
    """The analysis of `cycle` from the first of `sources` that gives a sound one.

    A cycle that is archived already is left as it is. A source that fails, has nothing yet, or
    whose data are refused is passed over for the next; one source serves the whole cycle.
    `correct` is the reason for replacing an archived analysis.

    Raises NotYetAvailable when a source may still have it later, else SourceError or DataError,
    naming each source's answer. Errors of the archive are not the source's and end it at once.
    """
    held = _held(cycle, archive)
    if held is not None and correct is None:
        return held
    folder = downloads / cycle.id
    answers: dict[str, SourceError | DataError] = {}
    for source in sources:
        try:
            analysis = _analysis(cycle, source, folder, progress, policy)
            store, verdict = _keep(archive, analysis, reference, correct)
        except SourceError as answer:
            answers[source.name] = answer
        except DataError as answer:
            answers[source.name] = answer
            # Sound bytes with wrong content: without its manifest the next source fetches anew.
            (folder / MANIFEST).unlink(missing_ok=True)
        else:
            return Intake(store, str(analysis.attrs["source"]), verdict)
    raise _refusal(cycle, answers)


def _held(cycle: Cycle, archive: Path) -> Intake | None:
    record = provenance(archive).get(cycle.init_time) if archive.exists() else None
    if record is None:
        return None
    store = StoreRef(address=str(archive), sha256=record["sha256"])
    return Intake(store, str(record.get("source", "")), None)


def _analysis(
    cycle: Cycle,
    source: Source | StoreSource,
    folder: Path,
    progress: Progress | None,
    policy: TransferPolicy | None,
) -> xr.Dataset:
    if isinstance(source, StoreSource):
        return read_store(source, cycle)
    manifest = fetch_analysis(cycle, source, folder, progress=progress, policy=policy)
    return build_analysis(manifest, folder)


def _keep(
    archive: Path, analysis: xr.Dataset, reference: Reference | None, correct: str | None
) -> tuple[StoreRef, Verdict]:
    if correct is None:
        return admit(archive, analysis, reference)
    verdict = examine(archive, analysis, reference).require("the correcting analysis")
    recorded = analysis.assign_attrs(gate=verdict.as_record())
    return correct_analysis(archive, recorded, correct), verdict


def _refusal(cycle: Cycle, answers: dict[str, SourceError | DataError]) -> SourceError | DataError:
    if len(answers) == 1:
        return next(iter(answers.values()))
    later = any(isinstance(answer, NotYetAvailable) for answer in answers.values())
    wrong = all(isinstance(answer, DataError) for answer in answers.values())
    kind = NotYetAvailable if later else DataError if wrong else SourceError
    told = "".join(f"\n  - {name}: {answer.what}" for name, answer in answers.items())
    return kind(
        f"no source gives a sound analysis:{told}",
        where=f"cycle {cycle}",
        remedy="try later, or start from the cycle before",
    )
