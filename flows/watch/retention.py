"""What is deleted when: fetched files, staged runs, receipts and stores past their time."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.locks import CycleIsBusyError, cycle_lock, is_worked_on
from flows.settings import Settings
from flows.timetable import age_hours
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.objects.root import open_root
from postprocess.retention import GRACE, retain
from postprocess.retention import Removal as StoreRemoval
from postprocess.retention_rules import Rule, parse_rules

RECEIPT_HOURS = 90 * 24.0
"""Receipts are small, and the figures of the last 30 cycles stand on them."""

_MEGABYTE = 1e6


@dataclass(frozen=True)
class Removal:
    """A folder to delete, its size, why, and the hours since its newest file that allow it."""

    path: Path
    bytes: int
    reason: str
    hours: float


@dataclass(frozen=True)
class Freed:
    """What was deleted, or would be: folders of the data root, and stores of the published one."""

    removals: tuple[Removal, ...]
    published: tuple[StoreRemoval, ...]
    dry_run: bool

    @property
    def summary(self) -> str:
        """One line."""
        stores = [store for store in self.published if store.stage == "delete"]
        sizes = [each.bytes for each in self.removals] + [store.bytes for store in stores]
        total = sum(sizes) / _MEGABYTE
        done = "would be freed" if self.dry_run else "freed"
        freed = f"{len(self.removals)} folders and {len(stores)} stores: {total:.1f} MB {done}"
        return f"{freed}{self._announced}"

    @property
    def _announced(self) -> str:
        """What is only announced, as the end of a sentence."""
        stores = [store for store in self.published if store.stage == "announce"]
        if not stores:
            return ""
        size = sum(store.bytes for store in stores) / _MEGABYTE
        done = "would be announced" if self.dry_run else "announced"
        return f"; {len(stores)} stores of {size:.1f} MB {done}: they go after the grace time"

    @property
    def lines(self) -> list[str]:
        """One line for each, and the sum."""
        told = [f"{each.path}: {each.bytes / _MEGABYTE:.1f} MB, {each.reason}"
                for each in self.removals]  # fmt: skip
        return [*told, *map(str, self.published), self.summary]


def free_space(
    settings: Settings,
    now: dt.datetime,
    *,
    rules: Mapping[str, Rule] | None = None,
    grace: dt.timedelta = GRACE,
    dry_run: bool = False,
) -> Freed:
    """Delete what the settings and the `rules` (by default theirs) for published stores no longer
    keep.

    Folders of a cycle in work are left alone, also of one that began since they were looked at.
    """
    removals = tuple(due for due in _due(settings, now) if dry_run or _removed(due, settings, now))
    rules = parse_rules(settings.keep_published) if rules is None else rules
    return Freed(removals, _published(settings.published, rules, grace, dry_run), dry_run)


def prune(
    root: str, *, rules: Mapping[str, Rule], grace: dt.timedelta, dry_run: bool = False
) -> Freed:
    """Of a published root alone: delete what the rules let go."""
    return Freed((), _published(root, rules, grace, dry_run), dry_run)


def _published(
    root: str, rules: Mapping[str, Rule], grace: dt.timedelta, dry_run: bool
) -> tuple[StoreRemoval, ...]:
    return tuple(retain(open_root(root), rules, grace=grace, dry_run=dry_run))


def _due(settings: Settings, now: dt.datetime) -> Iterator[Removal]:
    kept = settings.keep_downloads_hours
    yield from _older(settings.downloads, kept, "archived, and kept for a while", settings, now)
    stale = max(settings.catchup_hours, kept)
    yield from _older(settings.staging, stale, "a run that nobody finishes", settings, now)
    yield from _older(settings.receipts, RECEIPT_HOURS, "older than the figures", settings, now)


def _older(
    folder: Path, hours: float, reason: str, settings: Settings, now: dt.datetime
) -> Iterator[Removal]:
    """The cycle folders below `folder` that are past `hours`, of cycles that nobody works on."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        cycle = _cycle(path.name)
        if cycle is None or is_worked_on(cycle, settings.locks):
            continue
        if _is_past(path, cycle, hours, now):
            yield Removal(path, sum(each.stat().st_size for each in _files(path)), reason, hours)


def _is_past(path: Path, cycle: Cycle, hours: float, now: dt.datetime) -> bool:
    """Whether the newest file of the cycle's folder is older than `hours`.

    Age is that of the files, not of the cycle: a backfill works on cycles long past.
    """
    newest = max((each.stat().st_mtime for each in (*_files(path), path)), default=0.0)
    idle = (now.timestamp() - newest) / 3600
    return idle > hours and age_hours(cycle, now) > hours


def _files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


def _removed(due: Removal, settings: Settings, now: dt.datetime) -> bool:
    """Delete it with the cycle's lock in hand; False when a run has come in between."""
    cycle = _cycle(due.path.name)
    assert cycle is not None, "only folders named after a cycle are due"
    try:
        with cycle_lock(cycle, settings.locks):
            if past := _is_past(due.path, cycle, due.hours, now):
                shutil.rmtree(due.path, ignore_errors=True)
            return past
    except CycleIsBusyError:
        return False


def _cycle(name: str) -> Cycle | None:
    """The cycle of a folder named after it, or after it and a forecast step."""
    try:
        return Cycle.parse(name.partition("-step")[0])
    except InputError:
        return None
