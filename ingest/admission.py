"""The way into the archive: the gate first, its verdict kept with the analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ingest.archive import append_analysis, archived_times, read_analysis
from ingest.gate.judge import judge_analysis
from ingest.gate.reference import Planes, Reference
from ingest.gate.verdict import Verdict
from mosaic_core.contract.artifacts import StoreRef
from mosaic_core.contract.cycle import Cycle

_LONGEST_STEP = np.timedelta64(24, "h")


def admit(
    archive: Path,
    analysis: xr.Dataset,
    reference: Reference | None = None,
    *,
    compared_with: Path | None = None,
    static_fields: Planes | None = None,
) -> tuple[StoreRef, Verdict]:
    """Archive the analysis (ANALYSIS schema, one time) if the gate lets it pass.

    The verdict becomes part of its provenance under `gate`. It is compared with the newest
    analysis of the day before it in the archive, or in `compared_with`. Raises DataError naming
    every check that refuses, ArchiveError as `append_analysis`.
    """
    verdict = examine(compared_with or archive, analysis, reference, static_fields=static_fields)
    cycle = Cycle.from_datetime64(analysis["time"].values[0])
    verdict.require(f"analysis of {cycle} from {analysis.attrs.get('source', 'the user')}")
    return accept(archive, analysis, verdict), verdict


def accept(archive: Path, analysis: xr.Dataset, verdict: Verdict) -> StoreRef:
    """Archive an analysis with the verdict that let it pass."""
    return append_analysis(archive, analysis.assign_attrs(gate=verdict.as_record()))


def examine(
    archive: Path,
    analysis: xr.Dataset,
    reference: Reference | None = None,
    *,
    static_fields: Planes | None = None,
) -> Verdict:
    """The gate's verdict on an analysis, given what the archive holds before it."""
    previous = _previous(archive, analysis)
    return judge_analysis(
        analysis, reference=reference, previous=previous, static_fields=static_fields
    )


def _previous(archive: Path, analysis: xr.Dataset) -> xr.Dataset | None:
    time = analysis["time"].values[0]
    times = archived_times(archive)
    near = times[(times < time) & (times >= time - _LONGEST_STEP)]
    return read_analysis(archive, near[-1]) if near.size else None
