"""Each new analysis scores every forecast that was valid then; the record of it is public."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from flows.progress import Reporter
from flows.settings import Settings
from flows.timetable import age_hours
from flows.watch.alerts import Alert, sender, update_alerts
from ingest.archive import archived_times, provenance, read_analysis
from mosaic_core.contract.cycle import Cycle
from postprocess.objects.root import MUTABLE, ObjectRoot, open_root
from postprocess.scores.ledger import read_scores, scored_times
from postprocess.scores.live import Scored, score_analysis
from postprocess.scores.summary import drifts, field_names, finished_scores, long_table

SCORES = "scores/scores.csv"
DRIFT = "drift"
PERIOD_DAYS = 30
"""The scores that everybody looks at are those of 30 days, up to the newest analysis scored."""
STALE_HOURS = 30.0
"""Age of the newest analysis scored from which it is told: when all is well it is at most 13 h,
as analyses come every 6 h, about 7 h late."""
TRAILING_DAYS = 60
SHOWN_LEADS = (24, 72, 120, 168, 240)


@dataclass(frozen=True)
class Verified:
    """What one pass scored; `faults` tell what could not be, which is tried again next time."""

    scored: tuple[Scored, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that was left out, and why."""
        return tuple(fault for each in self.scored for fault in each.faults)

    @property
    def summary(self) -> str:
        """One line."""
        forecasts = sum(len(each.forecasts) for each in self.scored)
        analyses = sum(bool(each.forecasts) for each in self.scored)
        left = f"; {len(self.faults)} could not be" if self.faults else ""
        return f"{forecasts} forecasts scored against {analyses} analyses{left}"


def verify(settings: Settings, report: Reporter, since: Cycle | None = None) -> Verified:
    """Score what is published against every archived analysis from `since` on; show the record.

    By default `since` is one length of a forecast before the newest analysis: older analyses can
    only have something new to score after a backfill or a correction of one of them.
    """
    root, analyses = open_root(settings.published), _Archive(settings)
    times = _times(settings, since)
    scored = []
    with report.stage("scoring forecasts against analyses") as advance:
        for done, valid in enumerate(times, 1):
            scored.append(score_analysis(root, valid, analyses))
            advance(done, len(times), str(valid))
    for fault in (verified := Verified(tuple(scored))).faults:
        report.say(f"warning, not scored: {fault}")
    if any(each.forecasts for each in scored):
        table = long_table(recent_scores(root))
        root.write(SCORES, table.to_csv(index=False).encode(), cache=MUTABLE)
    return verified


def recent_scores(root: ObjectRoot, days: int = PERIOD_DAYS) -> pd.DataFrame:
    """Finished scores by field, region and lead over the last `days` that were scored."""
    return finished_scores(read_scores(root, _last(scored_times(root), days)))


def period_told(root: ObjectRoot, now: dt.datetime, days: int = PERIOD_DAYS) -> str:
    """Which analyses `recent_scores` is of; says so when the newest is older than STALE_HOURS."""
    times = _last(scored_times(root), days)
    if not times:
        return "nothing is scored yet"
    told = f"analyses from {times[0]} to {times[-1]}"
    age = age_hours(times[-1], now)
    late = f", nothing newer is scored: the last is {age / 24:.1f} days old"
    return told + (late if age > STALE_HOURS else "")


def scores_markdown(settings: Settings, now: dt.datetime) -> str:
    """Headline scores as a table: fields by lead, with skill against persistence."""
    root = open_root(settings.published)
    table = recent_scores(root)
    rows = table[(table["region"] == "global") & table["lead_hours"].isin(SHOWN_LEADS)]
    if rows.empty:
        return (
            "Nothing is scored yet: a forecast is scored when the analysis comes that it reaches."
        )
    lines = [
        "Fair CRPS over the globe, in brackets the skill against persistence "
        "(1 perfect, 0 no better), against ECMWF's own analysis at 1.5°: "
        f"{period_told(root, now)}.\n",
        "| field | " + " | ".join(f"+{hours // 24} d" for hours in SHOWN_LEADS) + " |",
        "|---|" + "---:|" * len(SHOWN_LEADS),
    ]
    for name, group in rows.groupby(field_names(rows)):
        units = group["units"].iloc[0]
        lines.append(f"| {name}, {units} | " + " | ".join(_cells(group)) + " |")
    return "\n".join(lines)


def _cells(group: pd.DataFrame) -> Iterator[str]:
    """Score and skill of one field at each of SHOWN_LEADS; nothing where there is none."""
    told = {
        lead: f"{crps:.3g} ({skill:.2f})"
        for lead, crps, skill in zip(
            group["lead_hours"], group["crps"], group["crpss"], strict=True
        )
    }
    return (told.get(lead, "") for lead in SHOWN_LEADS)


def drift_alerts(settings: Settings) -> list[Alert]:
    """One alert for all scores that left their own past, the worst named first."""
    root = open_root(settings.published)
    found = drifts(read_scores(root, _last(scored_times(root), TRAILING_DAYS)))
    if not found:
        return []
    worst = sorted(found, key=lambda each: -(each.recent - each.usual) / each.deviation)
    cause = f"{len(found)} scores are worse than 60 days allow: {'; '.join(map(str, worst[:3]))}"
    return [Alert(kind=DRIFT, subject="scores", cause=cause, command="mosaic-ops scores")]


def tell_of_drift(settings: Settings, now: dt.datetime) -> tuple[Alert, ...]:
    """Raise the alert of drifting scores, or end it; what is newly raised."""
    return update_alerts(drift_alerts(settings), settings.alerts, now, sender(settings), [DRIFT])


class _Archive:
    """The archived analyses by cycle; None for one that is not there."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.archive
        self._records = provenance(self._path) if self._path.exists() else {}

    def sha256(self, cycle: Cycle) -> str | None:
        """From the record of the time, as it was when this object was made.

        A correction meanwhile is scored under the older digest, and so once more next time.
        """
        record = self._records.get(cycle.init_time)
        return None if record is None else str(record["sha256"])

    def read(self, cycle: Cycle) -> xr.Dataset | None:
        """The values, proved equal to their digest."""
        if cycle.init_time not in self._records:
            return None
        return read_analysis(self._path, cycle.init_time)


def _times(settings: Settings, since: Cycle | None) -> list[Cycle]:
    held = sorted(map(Cycle.from_datetime64, archived_times(settings.archive)))
    if held and since is None:
        since = held[-1].shift(-settings.lead_hours)
    return [cycle for cycle in held if since is not None and cycle >= since]


def _last(times: Iterable[Cycle], days: int) -> list[Cycle]:
    every = sorted(times)
    return [time for time in every if time > every[-1].shift(-24 * days)]
