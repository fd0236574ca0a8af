"""Scoring what is published: each new analysis against every forecast that is valid then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import MosaicOpsError
from mosaic_core.contract.variants import VARIANTS
from postprocess.catalog import CycleEntry, read_index
from postprocess.objects.root import ObjectRoot
from postprocess.products.stored import quarantined_in
from postprocess.publish import FORECAST
from postprocess.read import open_published
from postprocess.scores.ledger import record, scored_runs
from postprocess.scores.table import DIGESTS, lead_hours, score_lead


class Analyses(Protocol):
    """The archived analyses by cycle; None where there is none."""

    def sha256(self, cycle: Cycle) -> str | None:
        """The digest of the values, without reading them."""

    def read(self, cycle: Cycle) -> xr.Dataset | None:
        """(time 1, [level,] latitude, longitude), proved; MosaicOpsError when damaged."""


@dataclass(frozen=True)
class Scored:
    """What was scored against the analysis of `valid`; `faults` are of forecasts left out."""

    valid: Cycle
    forecasts: tuple[Cycle, ...]
    faults: tuple[str, ...]


def score_analysis(root: ObjectRoot, valid: Cycle, analyses: Analyses) -> Scored:
    """Score every published forecast that is valid at `valid` and keep the sums.

    Forecasts already scored are left alone; the rows of a cycle's earlier run are replaced by
    those of its current one, and rows made with analyses since corrected by new ones. What cannot
    be read, a forecast, an analysis or the kept sums, is told in `faults` and tried again next
    time, and so is everything while there is no analysis of `valid`.
    """
    try:
        entries = unscored(root, valid, analyses)
        truth = analyses.read(valid) if entries else None
    except MosaicOpsError as error:
        return Scored(valid, (), (f"anything valid {valid}: {error.what} ({error.where})",))
    if truth is None:
        return Scored(valid, (), ())
    tables: dict[Cycle, pd.DataFrame] = {}
    faults = []
    for entry in entries:
        cycle = Cycle.parse(entry.cycle)
        try:
            tables[cycle] = _score(root, entry, valid, truth, analyses)
        except MosaicOpsError as error:
            faults.append(f"forecast of {cycle} valid {valid}: {error.what}")
    if tables:
        record(root, valid, pd.concat(tables.values()))
    return Scored(valid, tuple(sorted(tables)), tuple(faults))


def unscored(root: ObjectRoot, valid: Cycle, analyses: Analyses) -> list[CycleEntry]:
    """Published forecasts that hold `valid` and are not scored yet with the analyses of now.

    Rows that name no analyses count as made with others: they are made once more.
    """
    reaching = [entry for entry in read_index(root).cycles if _reaches(entry, valid)]
    done = scored_runs(root, valid) if reaching else {}
    return [entry for entry in reaching if _is_open(entry, valid, done, analyses)]


def _is_open(
    entry: CycleEntry,
    valid: Cycle,
    done: dict[tuple[Cycle, str], dict[str, str]],
    analyses: Analyses,
) -> bool:
    """Not scored, or with other values than the archive holds; one that is gone there is fine."""
    cycle = Cycle.parse(entry.cycle)
    made_with = done.get((cycle, entry.run_id))
    if made_with is None:
        return True
    held = _digests(cycle, valid, analyses)
    return any(held[name] not in (None, made_with[name]) for name in DIGESTS)


def _digests(cycle: Cycle, valid: Cycle, analyses: Analyses) -> dict[str, str | None]:
    return dict(zip(DIGESTS, (analyses.sha256(valid), analyses.sha256(cycle)), strict=True))


def _reaches(entry: CycleEntry, valid: Cycle) -> bool:
    hours = lead_hours(Cycle.parse(entry.cycle), valid)
    step = VARIANTS[entry.model_variant].step_hours
    stored = any(store.name == FORECAST and store.available for store in entry.stores)
    return stored and 0 < hours <= entry.lead_hours and hours % step == 0


def _score(
    root: ObjectRoot,
    entry: CycleEntry,
    valid: Cycle,
    truth: xr.Dataset,
    analyses: Analyses,
) -> pd.DataFrame:
    cycle = Cycle.parse(entry.cycle)
    initial = analyses.read(cycle)
    hours = lead_hours(cycle, valid)
    with open_published(root.address, cycle=cycle) as store:
        lead = valid.init_time - cycle.init_time
        return score_lead(
            store.isel(init_time=0).sel(number=_healthy(store, hours), lead_time=lead),
            truth.squeeze(),
            None if initial is None else initial.squeeze(),
            cycle=cycle,
            valid=valid,
            run_id=entry.run_id,
            digests=_digests(cycle, valid, analyses),
        )


def _healthy(store: xr.Dataset, hours: int) -> list[int]:
    """Members in the published statistics of a lead: those not put aside at it or before."""
    since = quarantined_in(store.attrs)
    numbers = map(int, store["number"].values)
    return [number for number in numbers if hours < since.get(number, hours + 1)]
