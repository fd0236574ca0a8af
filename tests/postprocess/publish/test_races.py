"""Three publishers race, some are killed, a reader polls: it never sees a bad or an older state.

MOSAIC_OPS_TEST_ROUNDS sets the number of rounds (default 3 per store; the campaign is 200).
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import tiny

from mosaic_core.contract.cycle import Cycle
from postprocess.layout import chunk_name
from postprocess.manifest import digest
from postprocess.objects.root import ObjectRoot, open_root
from postprocess.pointer import LATEST, manifest_of, read_checked
from postprocess.publish import publish, read_pointer
from postprocess.retention import retain
from postprocess.retention_rules import Rule
from postprocess.shards import decode_chunk, split_shard
from postprocess.verify import verify_store

ROUNDS = int(os.environ.get("MOSAIC_OPS_TEST_ROUNDS", "3"))
START = Cycle.parse("2020-01-01T00Z")
# Spawned, not forked: a forked child inherits a client's threads in the middle of their work.
_PROCESSES = multiprocessing.get_context("forkserver")


@dataclasses.dataclass
class Reader:
    """Polls the pointer and reads through it, as a viewer does."""

    root: ObjectRoot
    reads: int = 0
    standing: tuple[datetime, int] | None = None
    bad: list[str] = dataclasses.field(default_factory=list)
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    def poll(self) -> None:
        while not self.stopped.is_set():
            try:
                self._read_once()
            except Exception as error:  # noqa: BLE001  (whatever a reader meets is the finding)
                self.bad.append(repr(error))
            time.sleep(0.01)

    def _read_once(self) -> None:
        pointer = read_checked(self.root, LATEST)
        if pointer is None:
            return
        rank = pointer.members * (1 + pointer.lead_hours)
        standing = (Cycle.parse(pointer.cycle).datetime, rank)
        if self.standing is not None and standing < self.standing:
            self.bad.append(f"went back from {self.standing} to {standing}")
        self.standing = standing
        manifest = manifest_of(self.root, pointer)
        for record in random.sample(manifest.objects, 2):
            if digest(self.root.read(f"{pointer.path}/{record.key}")) != record.sha256:
                self.bad.append(f"{record.key} of {pointer.path} is not what it should be")
        name = chunk_name(0, 0, 0, 0, 0)
        shard = self.root.read(f"{pointer.path}/forecast.zarr/2m_temperature/{name}")
        maps = [decode_chunk(chunk, (6, 12), name) for chunk in split_shard(shard, 3, name)]
        if not np.isfinite(maps).all():
            self.bad.append(f"gaps in {pointer.path}")
        self.reads += 1


def _start(staged: Path, address: str, cycle: Cycle, run_id: str) -> Callable[..., bool]:
    """Start a publisher; what is returned waits for it, or kills it after a time."""
    process = _PROCESSES.Process(
        target=tiny.publish_in_child,
        args=(dict(os.environ), staged, address, cycle.label, run_id),
        daemon=True,
    )
    process.start()

    def end(after: float | None = None) -> bool:
        process.join(after)
        was_alive = process.is_alive()
        if was_alive:
            process.kill()
        process.join()
        assert was_alive or process.exitcode == 0
        return was_alive

    return end


def test_races_with_kills(address: str, tmp_path: Path) -> None:
    clients = [f"postprocess.objects.{name}" for name in ("local", "s3", "gcs")]
    _PROCESSES.set_forkserver_preload(["tiny", *clients])
    chance = random.Random(ROUNDS)
    reader = Reader(open_root(address))
    thread = threading.Thread(target=reader.poll)
    thread.start()
    killed = 0
    try:
        for turn in range(ROUNDS):
            cycle = START.shift(6 * turn)
            runs = (
                (cycle, f"a{turn}", 2),
                (cycle, f"b{turn}", chance.choice((1, 2, 3))),
                (cycle.shift(chance.choice((-12, -6, 6))), f"c{turn}", 2),
            )
            ends = []
            for number, (of, run_id, members) in enumerate(runs):
                folder = tmp_path / f"{turn}-{number}"
                staged = tiny.stage(folder, of, run_id, members=members, seed=turn)
                ends.append(_start(staged, address, of, run_id))
            for end in ends:
                doomed = chance.random() < 0.4
                killed += end(chance.uniform(0, 0.5) if doomed else None)
    finally:
        reader.stopped.set()
        thread.join()
    last = START.shift(6 * ROUNDS)
    publish(tiny.stage(tmp_path / "last", last), address, cycle=last, run_id="last")
    assert reader.bad == []
    assert reader.reads > ROUNDS
    assert killed > 0 or ROUNDS < 10
    pointer = read_pointer(address)
    assert pointer is not None
    assert Cycle.parse(pointer.cycle) >= last
    _no_orphan_survives(open_root(address), address)
    print(f"{address}: {ROUNDS} rounds, {killed} killed, {reader.reads} reads, 0 bad")


def _no_orphan_survives(root: ObjectRoot, address: str) -> None:
    """After a sweep every object below cycles/ is one that a pointer or its manifest names."""
    root.delete([info.key for info in root.objects("claims")])  # their publishers are dead
    retain(root, {"other": Rule()}, grace=-timedelta(seconds=5))
    named = set()
    for name in root.folders("cycles"):
        pointer = read_checked(root, f"cycles/{name}/current.json")
        if pointer is not None:
            manifest = manifest_of(root, pointer)
            named |= {f"{pointer.path}/{record.key}" for record in manifest.objects}
            named |= {f"{pointer.path}/manifest.json", f"cycles/{name}/current.json"}
    assert {info.key for info in root.objects("cycles")} == named
    assert root.objects("claims") == []
    assert verify_store(address).faults == ()


def test_publishers_of_one_cycle_agree_on_the_better_run(address: str, tmp_path: Path) -> None:
    folders = [
        tiny.stage(tmp_path / str(members), START, f"m{members}", members=members)
        for members in (1, 3, 2)
    ]
    threads = [
        threading.Thread(
            target=tiny.publish_in_child, args=({}, f, address, START.label, f"m{f.name}")
        )
        for f in folders
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    pointer = read_pointer(address)
    assert pointer is not None
    assert pointer.members == 3
    assert verify_store(address).faults == ()
