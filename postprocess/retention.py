"""Retention: what may go, in an order in which no reader ever meets half of it.

A store that may go is first announced (the catalogue stops naming it), and after a grace time its
root metadata goes first, so that a late reader gets an error instead of gaps, then its data. Runs
that no pointer names and that nobody claims go the same way. Never touched: the newest cycle, a run
that is being published, the runs of a cycle whose pointer is damaged, and anything younger than the
grace time. Killed anywhere, the next run goes on. Time is the store's own, so a wrong clock here
removes nothing too early. Just before something goes, the claims and the cycle's pointer are read
again: a publisher may have come meanwhile.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mosaic_core.contract.cycle import Cycle
from postprocess.catalog import INDEX, read_index, update_catalog
from postprocess.manifest import CLAIMS, MANIFEST, DamagedError, Manifest
from postprocess.objects.root import MUTABLE, ObjectInfo, ObjectRoot, UnreachableError
from postprocess.pointer import (
    CURRENT,
    LATEST,
    current_key,
    cycle_manifests,
    read_checked,
    require_our_version,
    trusted,
)
from postprocess.pruned import Pruned, pruned_key, read_pruned, write_pruned
from postprocess.retention_rules import DEFAULT_RULES, Rule, rule_of

_LOG = logging.getLogger(__name__)

GRACE = timedelta(hours=24)
CLAIM_LIFE = timedelta(hours=6)
"""A claim counts for at least so long, however short the grace: its publisher may be at work, and
renews it far more often."""
_METADATA = "zarr.json"
_ROOT_DEPTH = "cycles/cycle/run/store/zarr.json".count("/")
_NOTE_DEPTH = "cycles/cycle/current.json".count("/")
_BATCH = 500


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


@dataclass(frozen=True)
class _Deletion:
    """Keys to delete, stage by stage, and the removals that this is.

    `cycle` is not to be claimed, or of it the one `run`; `path`: the run that its pointer is to
    name, or with `orphan` is not to; without `path` it is to name none that is there.
    """

    removals: list[Removal]
    stages: list[list[str]]
    cycle: str = ""
    run: str | None = None
    path: str = ""
    orphan: bool = False


@dataclass
class _Plan:
    """What to do, in order. `announced` are the removals of the stage 'announce'."""

    announced: list[Removal] = field(default_factory=list)
    announcements: list[tuple[Manifest, Pruned]] = field(default_factory=list)
    deletions: list[_Deletion] = field(default_factory=list)

    @property
    def removals(self) -> list[Removal]:
        """All of it."""
        return [*self.announced, *(each for some in self.deletions for each in some.removals)]


@dataclass(frozen=True)
class _Times:
    """Of one pass, by the store's clock: now, and since when claims and anything else count."""

    now: datetime
    grace: timedelta

    @property
    def before(self) -> datetime:
        """What is older is past its grace time."""
        return self.now - self.grace

    @property
    def claimed_since(self) -> datetime:
        """A claim that is older is a dead publisher's."""
        return self.now - max(self.grace, CLAIM_LIFE)


def retain(
    root: ObjectRoot,
    rules: Mapping[str, Rule] = DEFAULT_RULES,
    *,
    grace: timedelta = GRACE,
    dry_run: bool = False,
) -> list[Removal]:
    """Remove what the rules let go; the removals done, or with `dry_run` those that would be.

    A store's age is that of `age_of`.
    OtherVersionError, before anything goes, when another version of mosaic-ops publishes there.
    """
    require_our_version(root, LATEST, INDEX)
    times = _Times(datetime.now(UTC) if dry_run else store_time(root), grace)
    latest = read_checked(root, LATEST)
    manifests = list(cycle_manifests(root))
    if manifests and latest is None:
        _LOG.warning(
            "no store goes: latest.json is missing, `mosaic-ops catalog --rebuild` makes it"
        )
    busy = _busy(root, times)
    plan = _Plan()
    if latest is not None:
        others = [(place, *each) for place, each in enumerate(reversed(manifests))]
        idle = [each for each in others if each[1].id not in {name for name, _ in busy}]
        told = _told_to_go(root)
        for place, cycle, manifest in idle:
            if manifest.path != latest.path:
                _plan_run(root, place, cycle, manifest, rules, told, times, plan)
    kept = {latest.path} if latest else set()
    _plan_orphans(root, {manifest.path for _, manifest in manifests}, kept, busy, times, plan)
    stale = [info.key for info in root.objects(CLAIMS) if info.modified <= times.claimed_since]
    _plan_rest(CLAIMS, "left by killed publishers", stale, plan)
    if dry_run:
        return plan.removals
    done = _carry_out(root, plan, times)
    root.sweep(times.before)
    return done


def age_of(cycle: Cycle, manifest: Manifest, now: datetime) -> timedelta:
    """Since its initial time or, of a forecast made later (a backfill), since its publication."""
    return now - max(cycle.datetime, manifest.created_at)


def store_time(root: ObjectRoot) -> datetime:
    """The time by the store's own clock."""
    key = f"{CLAIMS}/clock-{secrets.token_hex(8)}"
    root.write(key, b"", cache=MUTABLE)
    written = [info.modified for info in root.objects(CLAIMS) if info.key == key]
    root.delete([key])
    if not written:
        raise UnreachableError(
            "the store does not list what was just written",
            where=f"{root.address}/{key}",
            remedy="try again; if it persists the store is faulty",
        )
    return written[0]


def _busy(root: ObjectRoot, times: _Times) -> set[tuple[str, str]]:
    """Cycle id and run id of every publication that is under way."""
    claims = root.objects(CLAIMS)
    return {_claimed(info) for info in claims if info.modified > times.claimed_since}


def _told_to_go(root: ObjectRoot) -> set[str]:
    """Stores that the catalogue no longer offers. A damaged index tells of none."""
    try:
        index = read_index(root)
    except DamagedError as error:
        _LOG.warning("nothing counts as announced: %s", error)
        return set()
    return {store.href for entry in index.cycles for store in entry.stores if not store.available}


def _plan_run(
    root: ObjectRoot,
    place: int,
    cycle: Cycle,
    manifest: Manifest,
    rules: Mapping[str, Rule],
    told: set[str],
    times: _Times,
    plan: _Plan,
) -> None:
    """Announce what is past its time; what readers were `told` of long enough goes.

    What the note announced and the catalogue does not say, is announced anew: the time of grace
    begins when readers can know.
    """
    note = read_pruned(root, manifest)
    age = age_of(cycle, manifest, times.now)
    expired = {name for name in manifest.stores if not rule_of(rules, name).keeps(age, place)}
    known = {name for name in note.announced if f"{manifest.path}/{name}" in told}
    if new := sorted((expired | set(note.announced)) - known):
        for name in new:
            plan.announced.append(_removal("announce", manifest, name, str(rule_of(rules, name))))
        announced = note.announced | dict.fromkeys(new, times.now)
        plan.announcements.append((manifest, note.model_copy(update={"announced": announced})))
    due = {name for name in known if note.announced[name] <= times.before}
    if due:
        _plan_deletions(root, manifest, due, plan)


def _plan_deletions(root: ObjectRoot, manifest: Manifest, due: set[str], plan: _Plan) -> None:
    """Stores whose grace time is over; with the last of them the whole cycle."""
    cycle = Cycle.parse(manifest.cycle)
    there = root.objects(manifest.path)
    keys = [info for info in there if _store_of(info, manifest.path) in due]
    removals = []
    for name in sorted({_store_of(info, manifest.path) for info in keys}):
        some = [info for info in keys if _store_of(info, manifest.path) == name]
        size = sum(info.size for info in some)
        what = f"{manifest.path}/{name}"
        removals.append(Removal("delete", what, "announced and past grace", len(some), size))
    stages = _safe_order(info.key for info in keys)
    if due >= set(manifest.stores):
        last = [current_key(cycle), f"{manifest.path}/{MANIFEST}", pruned_key(manifest)]
        what = f"cycles/{cycle.id}"
        removals.append(Removal("delete", what, "nothing is left", len(last), 0))
        stages.append(last)
    if stages:
        plan.deletions.append(_Deletion(removals, stages, cycle.id, path=manifest.path))


def _plan_orphans(
    root: ObjectRoot,
    current: set[str],
    kept: set[str],
    busy: set[tuple[str, str]],
    times: _Times,
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
            if f"cycles/{name}/{run}" not in current | kept and (name, run) not in busy:
                _plan_orphan(root, name, run, times.before, plan)
        if not current & {f"cycles/{name}/{run}" for run in runs} and name not in dict(busy):
            notes = [i for i in root.objects(f"cycles/{name}") if i.key.count("/") == _NOTE_DEPTH]
            old = [info.key for info in notes if info.modified <= times.before]
            _plan_rest(f"cycles/{name}", "notes on runs that are gone", old, plan, cycle=name)


def _plan_rest(what: str, reason: str, keys: list[str], plan: _Plan, *, cycle: str = "") -> None:
    if keys:
        removal = Removal("delete", what, reason, len(keys), 0)
        plan.deletions.append(_Deletion([removal], [keys], cycle))


def _claimed(info: ObjectInfo) -> tuple[str, str]:
    """Cycle id and run id of a claim."""
    cycle, _, run = info.key.removeprefix(f"{CLAIMS}/").removesuffix(".json").partition(".")
    return cycle, run


def _plan_orphan(root: ObjectRoot, cycle: str, run: str, before: datetime, plan: _Plan) -> None:
    """A run just superseded may still be read: the pointer's age counts as well as its own."""
    path = f"cycles/{cycle}/{run}"
    beside = [info for info in root.objects(f"cycles/{cycle}") if info.key.endswith(".json")]
    pointer = [info for info in beside if info.key == f"cycles/{cycle}/current.json"]
    there = root.objects(path)
    newest = max((info.modified for info in [*there, *pointer]), default=before)
    if not there or newest > before:
        return
    size = sum(info.size for info in there)
    removal = Removal("delete", path, "no pointer names it", len(there), size)
    stages = _safe_order(info.key for info in there)
    plan.deletions.append(_Deletion([removal], stages, cycle, run, path, orphan=True))


def _carry_out(root: ObjectRoot, plan: _Plan, times: _Times) -> list[Removal]:
    """Announce, then delete what may still go; what was done."""
    done = list(plan.announced)
    for manifest, note in plan.announcements:
        write_pruned(root, manifest, note)
    if plan.announcements:
        update_catalog(root, rebuild=True)
    for deletion in plan.deletions:
        if not _may_go(root, deletion, times):
            _LOG.warning("kept, a publisher came: %s", deletion.removals[0].what)
            continue
        for keys in deletion.stages:
            for start in range(0, len(keys), _BATCH):
                root.delete(keys[start : start + _BATCH])
        done += deletion.removals
    if plan.deletions:
        update_catalog(root, rebuild=True)
    return done


def _may_go(root: ObjectRoot, deletion: _Deletion, times: _Times) -> bool:
    """Whether claims and the cycle's pointer are as they were when it was planned."""
    if not deletion.cycle:
        return True
    claims = {run for cycle, run in _busy(root, times) if cycle == deletion.cycle}
    if claims if deletion.run is None else deletion.run in claims:
        return False
    key = f"cycles/{deletion.cycle}/{CURRENT}"
    if not deletion.path:
        found = root.read_tagged(key)
        return found is None or trusted(root, found.content, key) is None
    try:
        pointer = read_checked(root, key)
    except DamagedError:
        return False
    is_named = pointer is not None and pointer.path == deletion.path
    return is_named != deletion.orphan


def _safe_order(keys: Iterable[str]) -> list[list[str]]:
    """Stages of deletion: root metadata of stores, metadata of arrays, data.

    A store that is going opens with an error, never with gaps.
    """
    stages: list[list[str]] = [[], [], []]
    for key in sorted(keys):
        is_root = key.count("/") == _ROOT_DEPTH
        stages[2 if not key.endswith(f"/{_METADATA}") else 0 if is_root else 1].append(key)
    return [stage for stage in stages if stage]


def _store_of(info: ObjectInfo, path: str) -> str:
    return info.key.removeprefix(f"{path}/").split("/", 1)[0]


def _removal(stage: str, manifest: Manifest, name: str, reason: str) -> Removal:
    records = [r for r in manifest.objects if r.key.split("/", 1)[0] == name]
    size = sum(record.size for record in records)
    return Removal(stage, f"{manifest.path}/{name}", reason, len(records), size)
