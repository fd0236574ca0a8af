"""Scoring what is published: each new analysis against every forecast that is valid then."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError
from mosaic_core.contract.variants import VARIANTS
from postprocess.catalog import CycleEntry, read_index
from postprocess.objects.root import MissingObjectError, ObjectRoot
from postprocess.publish import FORECAST
from postprocess.read import open_published
from postprocess.scores.ledger import record, scored_runs
from postprocess.scores.table import lead_hours, score_lead

HEALTH = "health.json"

Analyses = Callable[[Cycle], xr.Dataset | None]
"""The analysis of a cycle, (time 1, [level,] latitude, longitude); None when there is none."""


@dataclass(frozen=True)
class Scored:
    """What was scored against the analysis of `valid`; `faults` are of forecasts left out."""

    valid: Cycle
    forecasts: tuple[Cycle, ...]
    faults: tuple[str, ...]


def score_analysis(root: ObjectRoot, valid: Cycle, analyses: Analyses) -> Scored:
    """Score every published forecast that is valid at `valid` and keep the sums.

    Forecasts already scored are left alone; the rows of a cycle's earlier run are replaced by
    those of its current one. A forecast that cannot be read is told in `faults` and tried again
    next time, and so is everything while there is no analysis of `valid`.
    """
    entries = unscored(root, valid)
    truth = analyses(valid) if entries else None
    if truth is None:
        return Scored(valid, (), ())
    tables: dict[Cycle, pd.DataFrame] = {}
    faults = []
    for entry in entries:
        cycle = Cycle.parse(entry.cycle)
        try:
            tables[cycle] = _score(root, entry, cycle, valid, truth, analyses(cycle))
        except MosaicOpsError as error:
            faults.append(f"forecast of {cycle} valid {valid}: {error.what}")
    if tables:
        record(root, valid, pd.concat(tables.values()))
    return Scored(valid, tuple(sorted(tables)), tuple(faults))


def unscored(root: ObjectRoot, valid: Cycle) -> list[CycleEntry]:
    """Published forecasts that hold `valid` and are not scored against it yet."""
    reaching = [entry for entry in read_index(root).cycles if _reaches(entry, valid)]
    done = scored_runs(root, valid) if reaching else set()
    return [entry for entry in reaching if (Cycle.parse(entry.cycle), entry.run_id) not in done]


def _reaches(entry: CycleEntry, valid: Cycle) -> bool:
    hours = lead_hours(Cycle.parse(entry.cycle), valid)
    step = VARIANTS[entry.model_variant].step_hours
    stored = any(store.name == FORECAST and store.available for store in entry.stores)
    return stored and 0 < hours <= entry.lead_hours and hours % step == 0


def _score(
    root: ObjectRoot,
    entry: CycleEntry,
    cycle: Cycle,
    valid: Cycle,
    truth: xr.Dataset,
    initial: xr.Dataset | None,
) -> pd.DataFrame:
    sick = _quarantined(root, entry)
    with open_published(root.address, cycle=cycle) as store:
        healthy = [int(number) for number in store["number"].values if int(number) not in sick]
        lead = valid.init_time - cycle.init_time
        return score_lead(
            store.isel(init_time=0).sel(number=healthy, lead_time=lead),
            truth.squeeze(),
            None if initial is None else initial.squeeze(),
            cycle=cycle,
            valid=valid,
            run_id=entry.run_id,
        )


def _quarantined(root: ObjectRoot, entry: CycleEntry) -> set[int]:
    """Numbers of the members that the health check put aside."""
    try:
        report = json.loads(root.read(f"{entry.href}/{HEALTH}"))
    except MissingObjectError:
        return set()
    return set(map(int, report["quarantined"]))
