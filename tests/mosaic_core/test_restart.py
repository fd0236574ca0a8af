from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from mosaic_core.model.mosaic import Mosaic
from mosaic_core.restart import RestartFolder, Standing
from mosaic_core.rollout import forecast

NUMBERS = (4, 9, 2)


def standing(step: int, members: int = 2) -> Standing:
    shared, own = torch.full((1, 5, 3), 0.5), torch.full((members, 5, 3), float(step))
    return Standing(step, (shared, own))


def steps_kept(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.iterdir())


@pytest.mark.parametrize("kept_step", [1, 2, 3])
def test_from_any_standing_the_rollout_goes_on_with_the_same_bits(
    small_model: Mosaic, analyses: xr.Dataset, tmp_path: Path, kept_step: int
) -> None:
    """Through a file, in the first steps too, while the members still share a state."""
    folder = RestartFolder(tmp_path / "r", every=kept_step)
    for _ in forecast(small_model, analyses, numbers=NUMBERS, steps=kept_step, keep=folder.keep):
        pass
    whole = list(forecast(small_model, analyses, numbers=NUMBERS, steps=4))
    start = folder.newest(before=kept_step + 1)
    assert start is not None
    assert start.step == kept_step
    rest = list(forecast(small_model, analyses, numbers=NUMBERS, steps=4, start=start))
    assert [step.step for step in rest] == list(range(kept_step + 1, 5))
    for again, once in zip(rest, whole[kept_step + 1 :], strict=True):
        assert again.lead_time == once.lead_time
        assert np.array_equal(again.fields, once.fields)


def test_a_share_of_the_members_goes_on_as_they_do_together(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    told: list[Standing] = []
    whole = list(forecast(small_model, analyses, numbers=NUMBERS, steps=2, keep=told.append))
    part = told[0].share(slice(1, 3))
    (last,) = forecast(small_model, analyses, numbers=NUMBERS[1:], steps=2, start=part)
    assert np.array_equal(last.fields, whole[2].fields[1:])


def test_the_two_newest_are_kept_and_one_of_them_is_found(tmp_path: Path) -> None:
    folder = RestartFolder(tmp_path / "r", every=2)
    for step in range(1, 9):
        folder.keep(standing(step))
    assert steps_kept(tmp_path / "r") == [6, 8]
    for before, expected in ((9, 8), (8, 6), (7, 6)):
        found = folder.newest(before)
        assert found is not None
        assert found.step == expected
        assert [len(state) for state in found.states] == [1, 2]
        assert torch.equal(found.states[1], standing(expected).states[1])
    assert folder.newest(6) is None
    folder.remove()
    assert folder.newest(9) is None
    assert not (tmp_path / "r").exists()


def test_a_damaged_one_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RestartFolder(tmp_path, every=1)
    for step in (1, 2):
        folder.keep(standing(step))
    path = tmp_path / "0002.npz"
    good = path.read_bytes()
    place = good.index(np.float32(2).tobytes() * 3)
    for bad in (good[:-30], good[: len(good) // 2], b"", good[:place] + b"\1" + good[place + 1 :]):
        path.write_bytes(bad)
        found = folder.newest(9)
        assert found is not None
        assert found.step == 1
    assert "cannot be used" in caplog.text


def test_what_a_killed_writer_left_is_gone_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / "0007.aside"
    left.write_bytes(b"half")
    assert RestartFolder(tmp_path).newest(9) is None
    assert not left.exists()


def test_after_a_rewind_later_and_damaged_ones_push_out_none_that_serves(tmp_path: Path) -> None:
    """State 30 was ahead of the store, which holds the leads before 26."""
    first = RestartFolder(tmp_path, every=1)
    whole = written(first, tmp_path, 20).read_bytes()
    for name, content in (("0022", b"damaged"), ("0030", whole)):
        (tmp_path / f"{name}.npz").write_bytes(content)
    again = RestartFolder(tmp_path, every=1)
    found = again.newest(before=26)
    assert found is not None
    assert found.step == 20
    again.keep(standing(23))
    again.keep(standing(26))
    assert steps_kept(tmp_path) == [23, 26]
    found = again.newest(before=26)
    assert found is not None
    assert found.step == 23


def written(folder: RestartFolder, place: Path, step: int) -> Path:
    folder.keep(standing(step))
    return place / f"{step:04d}.npz"


CENTRAL = b"PK\1\2"


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 1), (10, 8), (10, 12)])
def test_any_damage_to_the_directory_of_the_file_passes_it_over(
    tmp_path: Path, place: int, value: int
) -> None:
    """Flags and method of the first state, in its record of the zip file's directory."""
    folder = RestartFolder(tmp_path, every=1)
    path = written(folder, tmp_path, 1)
    content = bytearray(path.read_bytes())
    record = content.rindex(CENTRAL, 0, content.rindex(CENTRAL))
    content[record + place] = value
    path.write_bytes(content)
    assert folder.newest(9) is None


@pytest.mark.parametrize(
    "states",
    [
        {"0": np.zeros((1, 5, 3), np.float32)},
        {"0": np.zeros((1, 5, 3), np.float32), "1": np.zeros((2, 5, 4), np.float32)},
        {"0": np.zeros((1, 5, 3), np.float32), "1": np.zeros((2, 5, 3))},
    ],
)
def test_other_states_than_were_kept_are_passed_over(
    tmp_path: Path, states: dict[str, Any]
) -> None:
    """One too few, of another shape, of another type."""
    folder = RestartFolder(tmp_path, every=1)
    folder.keep(standing(1))
    path = written(folder, tmp_path, 2)
    with np.load(path) as kept:
        shapes = kept["shapes"]
    np.savez(path, shapes=shapes, **states)
    found = folder.newest(9)
    assert found is not None
    assert found.step == 1


def test_by_default_a_short_rollout_keeps_none_and_a_long_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mosaic_core.restart.time.monotonic", lambda: now[0])
    folder = RestartFolder(tmp_path / "r")
    folder.keep(standing(1))
    assert folder.newest(9) is None
    now[0] += 3600
    folder.keep(standing(2))
    assert steps_kept(tmp_path / "r") == [2]


def test_a_full_disk_costs_the_standing_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on the size of files stands for the full disk."""
    folder = RestartFolder(tmp_path, every=1)
    folder.keep(standing(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        folder.keep(Standing(2, (torch.zeros(2, 500, 82),)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no restart state of step 2" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["0001.npz"]
    found = folder.newest(9)
    assert found is not None
    assert found.step == 1


def test_a_quick_failure_does_not_make_the_next_ones_frequent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, tried = [0.0], []
    monkeypatch.setattr("mosaic_core.restart.time.monotonic", lambda: now[0])
    folder = RestartFolder(tmp_path / "r")

    def write(standing: Standing) -> None:
        tried.append(standing.step)
        now[0] += 6 if len(tried) == 1 else 0.001
        if len(tried) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder, "_write", write)
    for step in range(1, 101):
        now[0] += 10
        folder.keep(standing(step))
    assert len(tried) <= 1 + 1000 // 200


def test_by_default_keeping_takes_at_most_three_percent_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes ten seconds, a standing six."""
    now, kept = [0.0], []
    monkeypatch.setattr("mosaic_core.restart.time.monotonic", lambda: now[0])
    folder = RestartFolder(tmp_path / "r")

    def write(standing: Standing) -> None:
        kept.append(standing.step)
        now[0] += 6

    monkeypatch.setattr(folder, "_write", write)
    for step in range(1, 1001):
        now[0] += 10
        folder.keep(standing(step))
    assert 0.02 < 6 * len(kept) / now[0] <= 0.03
