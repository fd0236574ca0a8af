"""Retention: what may go, in an order in which no reader ever meets half of it.

A store that may go is first announced (the catalogue stops naming it), and after a grace time its
root metadata goes first, so that a late reader gets an error instead of gaps, then its data. Runs
that no pointer names and that nobody claims go the same way. Never touched: the newest cycle, a run
that is being published, the runs of a cycle whose pointer is damaged, and anything younger than the
grace time. Killed anywhere, the next run goes on. Time is the store's own, so a wrong clock here
removes nothing too early.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from postprocess.catalog import INDEX, update_catalog
from postprocess.manifest import CLAIMS, MANIFEST, Manifest
from postprocess.objects.root import MUTABLE, ObjectInfo, ObjectRoot
from postprocess.pointer import (
    CURRENT,
    LATEST,
    current_key,
    cycle_manifests,
    read_checked,
    require_our_version,
)
from postprocess.pruned import Pruned, pruned_key, read_pruned, write_pruned

_LOG = logging.getLogger(__name__)

GRACE = timedelta(hours=24)
_CLOCK = f"{CLAIMS}/clock"
_METADATA = "zarr.json"
_ROOT_DEPTH = "cycles/cycle/run/store/zarr.json".count("/")
_NOTE_DEPTH = "cycles/cycle/current.json".count("/")
_BATCH = 500
_RULE = re.compile(r"^(?P<kind>[a-z_]+)=(?:(?P<days>\d+)d)?,?(?:(?P<count>\d+)n)?$")


@dataclass(frozen=True)
class Rule:
    """Kept while younger than `days` or among the newest `count` cycles; None sets no limit."""

    days: int | None = None
    count: int | None = None

    def keeps(self, age: timedelta, place: int) -> bool:
        """Whether a store of that age (since its initial time), `place`-th newest, stays."""
        if self.days is None and self.count is None:
            return True
        young = self.days is not None and age < timedelta(days=self.days)
        return young or (self.count is not None and place < self.count)

    def __str__(self) -> str:
        """Why something went."""
        aged = [f"older than {self.days} days"] if self.days is not None else []
        many = [f"not among the newest {self.count}"] if self.count is not None else []
        return " and ".join(aged + many)


# Members are most of the bytes and are rebuilt from the recipe; products are small and stay.
DEFAULT_RULES: Mapping[str, Rule] = {
    "forecast": Rule(days=30),
    "points": Rule(days=30),
    "ensemble": Rule(days=366),
    "other": Rule(),
}


@dataclass(frozen=True)
class Removal:
    """One thing that goes: a store of a run, an unreferenced run, or leftovers of killed writers.

    `stage` is 'announce' (readers are told, objects stay) or 'delete'.
    """

    stage: str
    what: str
    reason: str
    objects: int
    bytes: int

    def __str__(self) -> str:
        """In one line."""
        size = f"{self.objects} objects  {self.bytes / 1e6:.1f} MB"
        return f"{self.stage:9} {self.what}  {size}  ({self.reason})"


@dataclass
class _Plan:
    """What to do, in order."""

    removals: list[Removal] = field(default_factory=list)
    announcements: list[tuple[Manifest, Pruned]] = field(default_factory=list)
    deletions: list[list[str]] = field(default_factory=list)


def parse_rules(texts: Iterable[str]) -> dict[str, Rule]:
    """Rules like 'forecast=10d', 'points=40n' or 'ensemble=30d,100n' over the defaults.

    The kind is a store's name without its ending; 'other' is any that has no rule of its own. A
    rule without limits ('forecast=') keeps forever.
    """
    rules = dict(DEFAULT_RULES)
    for text in texts:
        match = _RULE.match(text)
        if match is None:
            raise InputError(
                f"cannot read the retention rule {text!r}",
                remedy="write it like forecast=10d (days), points=40n (cycles) or both: 10d,40n",
            )
        days, count = match["days"], match["count"]
        rules[match["kind"]] = Rule(int(days) if days else None, int(count) if count else None)
    return rules


def retain(
    root: ObjectRoot,
    rules: Mapping[str, Rule] = DEFAULT_RULES,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove what the rules let go; the removals done, or with `dry_run` those that would be.

    OtherVersionError, before anything goes, when another version of mosaic-ops publishes there.
    """
    require_our_version(root, LATEST, INDEX)
    now = datetime.now(UTC) if dry_run else store_time(root)
    plan = _Plan()
    manifests = list(cycle_manifests(root))
    claims = root.objects(CLAIMS)
    busy = {_claimed(info) for info in claims if info.modified > now - grace}
    _plan_stores(root, manifests, rules, now, grace, {name for name, _ in busy}, plan)
    _plan_orphans(root, {manifest.path for _, manifest in manifests}, busy, now - grace, plan)
    stale = [info.key for info in claims if info.modified <= now - grace]
    _plan_rest(CLAIMS, "left by killed publishers", stale, plan)
    if not dry_run:
        _carry_out(root, plan)
        root.sweep(now - grace)
    return plan.removals


def store_time(root: ObjectRoot) -> datetime:
    """The time by the store's own clock."""
    root.write(_CLOCK, b"", cache=MUTABLE)
    written = next(info for info in root.objects(CLAIMS) if info.key == _CLOCK)
    root.delete([_CLOCK])
    return written.modified


def _plan_stores(
    root: ObjectRoot,
    manifests: list[tuple[Cycle, Manifest]],
    rules: Mapping[str, Rule],
    now: datetime,
    grace: timedelta,
    busy_cycles: set[str],
    plan: _Plan,
) -> None:
    latest = read_checked(root, LATEST)
    for place, (cycle, manifest) in enumerate(reversed(manifests)):
        if latest is None or manifest.path == latest.path or cycle.id in busy_cycles:
            continue
        note = read_pruned(root, manifest)
        expired = [
            name
            for name in manifest.stores
            if not _rule(rules, name).keeps(now - cycle.datetime, place)
        ]
        new = sorted(set(expired) - set(note.announced))
        for name in new:
            plan.removals.append(_removal("announce", manifest, name, str(_rule(rules, name))))
        if new:
            announced = note.announced | dict.fromkeys(new, now)
            told = note.model_copy(update={"announced": announced})
            plan.announcements.append((manifest, told))
        _plan_deletions(root, manifest, note, now - grace, plan)


def _plan_deletions(
    root: ObjectRoot, manifest: Manifest, note: Pruned, before: datetime, plan: _Plan
) -> None:
    """Stores whose grace time is over; with the last of them the whole cycle."""
    due = {name for name, announced in note.announced.items() if announced <= before}
    if not due:
        return
    there = root.objects(manifest.path)
    keys = [info for info in there if _store_of(info, manifest.path) in due]
    for name in sorted({_store_of(info, manifest.path) for info in keys}):
        some = [info for info in keys if _store_of(info, manifest.path) == name]
        size = sum(info.size for info in some)
        what = f"{manifest.path}/{name}"
        plan.removals.append(Removal("delete", what, "announced and past grace", len(some), size))
    if keys:
        plan.deletions += _safe_order(info.key for info in keys)
    if due >= set(manifest.stores):
        cycle = Cycle.parse(manifest.cycle)
        last = [current_key(cycle), f"{manifest.path}/{MANIFEST}", pruned_key(manifest)]
        _plan_rest(f"cycles/{cycle.id}", "nothing is left", last, plan)


def _plan_orphans(
    root: ObjectRoot,
    current: set[str],
    busy: set[tuple[str, str]],
    before: datetime,
    plan: _Plan,
) -> None:
    """Runs that no pointer names: superseded, or left by publishers that never came back."""
    told = {path.split("/")[1] for path in current}
    for name in root.folders("cycles"):
        runs = root.folders(f"cycles/{name}")
        if runs and name not in told and root.read_tagged(f"cycles/{name}/{CURRENT}"):
            _LOG.warning("cycles/%s is kept: its pointer is damaged, see verify-store", name)
            continue
        for run in runs:
            if f"cycles/{name}/{run}" not in current and (name, run) not in busy:
                _plan_orphan(root, name, f"cycles/{name}/{run}", before, plan)
        if not current & {f"cycles/{name}/{run}" for run in runs} and name not in dict(busy):
            notes = [i for i in root.objects(f"cycles/{name}") if i.key.count("/") == _NOTE_DEPTH]
            old = [info.key for info in notes if info.modified <= before]
            _plan_rest(f"cycles/{name}", "notes on runs that are gone", old, plan)


def _plan_rest(what: str, reason: str, keys: list[str], plan: _Plan) -> None:
    if keys:
        plan.removals.append(Removal("delete", what, reason, len(keys), 0))
        plan.deletions.append(keys)


def _claimed(info: ObjectInfo) -> tuple[str, str]:
    """Cycle id and run id of a claim."""
    cycle, _, run = info.key.removeprefix(f"{CLAIMS}/").removesuffix(".json").partition(".")
    return cycle, run


def _plan_orphan(root: ObjectRoot, cycle: str, path: str, before: datetime, plan: _Plan) -> None:
    """A run just superseded may still be read: the pointer's age counts as well as its own."""
    beside = [info for info in root.objects(f"cycles/{cycle}") if info.key.endswith(".json")]
    pointer = [info for info in beside if info.key == f"cycles/{cycle}/current.json"]
    there = root.objects(path)
    newest = max((info.modified for info in [*there, *pointer]), default=before)
    if not there or newest > before:
        return
    size = sum(info.size for info in there)
    plan.removals.append(Removal("delete", path, "no pointer names it", len(there), size))
    plan.deletions += _safe_order(info.key for info in there)


def _carry_out(root: ObjectRoot, plan: _Plan) -> None:
    for manifest, note in plan.announcements:
        write_pruned(root, manifest, note)
    if plan.announcements:
        update_catalog(root, rebuild=True)
    for keys in plan.deletions:
        for start in range(0, len(keys), _BATCH):
            root.delete(keys[start : start + _BATCH])
    if plan.deletions:
        update_catalog(root, rebuild=True)


def _safe_order(keys: Iterable[str]) -> list[list[str]]:
    """Stages of deletion: root metadata of stores, metadata of arrays, data.

    A store that is going opens with an error, never with gaps.
    """
    stages: list[list[str]] = [[], [], []]
    for key in sorted(keys):
        is_root = key.count("/") == _ROOT_DEPTH
        stages[2 if not key.endswith(f"/{_METADATA}") else 0 if is_root else 1].append(key)
    return [stage for stage in stages if stage]


def _rule(rules: Mapping[str, Rule], name: str) -> Rule:
    kind = name.split(".", 1)[0]
    return rules.get(kind, rules.get("other", Rule()))


def _store_of(info: ObjectInfo, path: str) -> str:
    return info.key.removeprefix(f"{path}/").split("/", 1)[0]


def _removal(stage: str, manifest: Manifest, name: str, reason: str) -> Removal:
    records = [r for r in manifest.objects if r.key.split("/", 1)[0] == name]
    size = sum(record.size for record in records)
    return Removal(stage, f"{manifest.path}/{name}", reason, len(records), size)
