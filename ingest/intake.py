"""One cycle from whichever source has it into the archive: fetch, build, gate, append."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from ingest.admission import admit, examine
from ingest.analysis import build_analysis, incoming_statics
from ingest.archive import provenance
from ingest.correction import correct_analysis
from ingest.fetch import MANIFEST, Progress, fetch_analysis
from ingest.gate.reference import Planes, Reference
from ingest.gate.verdict import Verdict
from ingest.sources import Source
from ingest.stores import StoreSource, read_store
from ingest.transfer import TransferPolicy
from mosaic_core.contract.artifacts import StoreRef
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError

# The forecast step that may stand in for an analysis: the shortest there is.
FILL_STEP = 6


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
    fills: Path | None = None,
    progress: Progress | None = None,
    policy: TransferPolicy | None = None,
) -> Intake:
    """The analysis of `cycle` from the first of `sources` that gives a sound one.

    A cycle that is archived already is left as it is. A source that fails, has nothing yet, or
    whose data are refused is passed over for the next; one source serves the whole cycle.
    `correct` is the reason for replacing an archived analysis. With `fills`, an archive of its
    own for what may stand in for a missing analysis, the 6-h forecast of the cycle before that is
    valid at `cycle` is taken instead, and kept there.

    Raises NotYetAvailable when a source may still have it later, else SourceError or DataError,
    naming each source's answer. Errors of the archive are not the source's and end it at once.
    """
    held = _held(cycle, fills or archive)
    if held is not None and correct is None:
        return held
    order = _Order(cycle, FILL_STEP if fills else 0, downloads, progress, policy)
    if correct is not None:
        (order.folder / MANIFEST).unlink(missing_ok=True)
    answers: dict[str, SourceError | DataError] = {}
    for source in sources:
        try:
            analysis, static_fields = order.analysis(source)
            if correct is not None:
                verdict = examine(archive, analysis, reference, static_fields=static_fields)
                store = _replace(archive, analysis, verdict, correct)
            else:
                store, verdict = admit(
                    fills or archive, analysis, reference,
                    compared_with=archive, static_fields=static_fields,
                )  # fmt: skip
        except SourceError as answer:
            answers[source.name] = answer
        except DataError as answer:
            answers[source.name] = answer
            # Sound bytes with wrong content: without its manifest the next source fetches anew.
            (order.folder / MANIFEST).unlink(missing_ok=True)
        else:
            return Intake(store, str(analysis.attrs["source"]), verdict)
    raise _refusal(cycle, answers)


def _held(cycle: Cycle, archive: Path) -> Intake | None:
    record = provenance(archive).get(cycle.init_time) if archive.exists() else None
    if record is None:
        return None
    store = StoreRef(address=str(archive), sha256=record["sha256"])
    return Intake(store, str(record.get("source", "")), None)


@dataclass(frozen=True)
class _Order:
    """What is wanted: the fields valid at `valid`, `step` hours after the cycle they come from."""

    valid: Cycle
    step: int
    downloads: Path
    progress: Progress | None
    policy: TransferPolicy | None

    @property
    def folder(self) -> Path:
        return self.downloads / (f"{self.valid.id}-step{self.step}" if self.step else self.valid.id)

    def analysis(self, source: Source | StoreSource) -> tuple[xr.Dataset, Planes]:
        if isinstance(source, StoreSource):
            if self.step:
                raise SourceError("holds analyses only", where=source.name, remedy="use a mirror")
            return read_store(source, self.valid), {}
        manifest = fetch_analysis(
            self.valid.shift(-self.step), source, self.folder,
            progress=self.progress, policy=self.policy, step=self.step,
        )  # fmt: skip
        analysis = build_analysis(manifest, self.folder, step=self.step)
        return analysis, incoming_statics(self.folder)


def _replace(archive: Path, analysis: xr.Dataset, verdict: Verdict, reason: str) -> StoreRef:
    verdict.require("the correcting analysis")
    recorded = analysis.assign_attrs(gate=verdict.as_record())
    return correct_analysis(archive, recorded, reason)


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
