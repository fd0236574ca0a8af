"""A publisher killed after its cycle's own pointer: whoever comes next finishes its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from mosaic_core.contract.files import remove_asides
from postprocess import publish as publishing
from postprocess.catalog import read_index
from postprocess.objects.local import LocalRoot
from postprocess.objects.root import ObjectInfo, open_root
from postprocess.publish import publish, published_cycle, read_pointer, settle
from postprocess.verify import verify_store


class Killed(BaseException):
    """No handler of the program sees it."""


@pytest.mark.parametrize("before", ["advance_latest", "update_catalog", "write_viewer"])
def test_what_a_killed_publisher_left_is_finished(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    staged = tiny.stage(tmp_path / "s")
    with monkeypatch.context() as kill:
        kill.setattr(publishing, before, killed)
        with pytest.raises(Killed):
            publish(staged, address, cycle=tiny.CYCLE, run_id="run-1")
    assert published_cycle(address, tiny.CYCLE) is not None
    settle(address, tiny.CYCLE)
    latest = read_pointer(address)
    assert latest is not None
    assert latest.cycle == tiny.CYCLE.label
    assert [entry.cycle for entry in read_index(open_root(address)).cycles] == [tiny.CYCLE.label]
    assert open_root(address).read_tagged("index.html") is not None
    assert verify_store(address).faults == ()


def test_where_nothing_is_to_do_little_is_read_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "root"
    for number in range(8):
        cycle = tiny.CYCLE.shift(6 * number)
        publish(tiny.stage(tmp_path / str(number), cycle), address, cycle=cycle, run_id="run-1")
    before = {info.key: info for info in open_root(address).objects("")}
    reads: list[str] = []
    read = LocalRoot.read

    def counted(root: LocalRoot, key: str) -> bytes:
        reads.append(key)
        return read(root, key)

    monkeypatch.setattr(LocalRoot, "read", counted)
    settle(address, tiny.CYCLE.shift(42))
    settle(address, tiny.CYCLE)
    settle(address, tiny.CYCLE.shift(-6))
    assert len(reads) < 40
    after: dict[str, ObjectInfo] = {info.key: info for info in open_root(address).objects("")}
    assert after == before


def test_the_claim_is_renewed_while_objects_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_RENEW_SECONDS", 0.0)
    written: list[str] = []
    write = LocalRoot.write

    def counted(root: LocalRoot, key: str, content: bytes, *, cache: str) -> None:
        written.append(key)
        write(root, key, content, cache=cache)

    monkeypatch.setattr(LocalRoot, "write", counted)
    publish(tiny.stage(tmp_path / "s"), tmp_path / "root", cycle=tiny.CYCLE, run_id="run-1")
    claims = [key for key in written if key.startswith("claims/")]
    assert len(claims) > 10
    assert open_root(tmp_path / "root").objects("claims") == []


KILLED_IN_BETWEEN = """
import os, signal, sys
from pathlib import Path
from mosaic_core.contract import files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomic(Path(sys.argv[1]), b"half")
"""


def test_leftovers_of_a_killed_writer_do_not_stop_the_publication(tmp_path: Path) -> None:
    staged = tiny.stage(tmp_path / "s")
    table = staged / "ensemble.zarr" / "tracks.csv"
    command = [sys.executable, "-c", KILLED_IN_BETWEEN, str(table)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = table.parent.glob(".tracks.csv.*.tmp")
    publish(staged, tmp_path / "root", cycle=tiny.CYCLE, run_id="run-1")
    assert verify_store(str(tmp_path / "root")).faults == ()
    assert not [info for info in open_root(tmp_path / "root").objects("") if ".tmp" in info.key]
    remove_asides(staged)
    assert not left.exists()
    assert (staged / "cyclones.geojson").exists()
