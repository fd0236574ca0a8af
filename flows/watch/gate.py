"""What the gate said of analyses, from the records that the archives keep with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ingest.archive import provenance
from ingest.gate.verdict import Verdict
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ArchiveError


def gate_verdicts(cycles: Iterable[Cycle], *archives: Path) -> dict[Cycle, Verdict]:
    """The verdict on the analysis of each cycle that one of the archives holds, the last first."""
    records: dict[np.datetime64, dict[str, Any]] = {}
    for archive in archives:
        records |= _records(archive)
    kept = {cycle: records.get(cycle.init_time, {}).get("gate") for cycle in cycles}
    return {cycle: Verdict.from_record(gate) for cycle, gate in kept.items() if gate is not None}


def _records(archive: Path) -> dict[np.datetime64, dict[str, Any]]:
    try:
        return provenance(archive)
    except ArchiveError:  # nothing is archived yet
        return {}
