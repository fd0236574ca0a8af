"""Where a rollout stands, kept on disk now and then, so that a crash does not cost the whole run.

Member noise is a function of (cycle, member, step), so the normalised states are all there is to
keep: a rollout that starts from them has the same bits as one that was never interrupted.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mosaic_core.contract.files import sync_directory

logger = logging.getLogger(__name__)

SHARE_OF_TIME = 0.03
_FIRST_GUESS_BYTES_PER_S = 1.5e8  # an ordinary disk, until the first state was timed
_KEPT = 2  # the rollout may be ahead of what is stored; then the state before the last one serves


@dataclass(frozen=True)
class Standing:
    """Where a rollout stands after `step` steps: its normalised states, oldest first, each
    float32 (member, point, channel), or (1, point, channel) while the members share it."""

    step: int
    states: tuple[Tensor, ...]

    def share(self, members: slice) -> Standing:
        """That of some of the members."""
        some = (state if len(state) == 1 else state[members] for state in self.states)
        return Standing(self.step, tuple(some))


class RestartFolder:
    """The newest standings of one run, in a folder of its own.

    A standing is kept every `every` steps; without a number as often as keeping takes less than
    3 % of the time, which for a rollout of seconds is never.
    """

    def __init__(self, folder: Path, *, every: int | None = None) -> None:
        self._folder = folder
        self._every = every
        self._last = time.monotonic()
        self._seconds: float | None = None

    def keep(self, standing: Standing) -> None:
        """Write `standing` if one is due; the oldest goes when there are more than two.

        A full disk costs the standing, never the run: what was written of it is gone again.
        """
        if not self._is_due(standing):
            return
        least, started = 0.0, time.monotonic()
        try:
            self._write(standing)
            for path in self._kept()[:-_KEPT]:
                path.unlink()
        except OSError as error:
            logger.warning("no restart state of step %d: %s", standing.step, error)
            least = self._cost(standing)  # a quick failure says nothing of the next one's seconds
        self._last = time.monotonic()
        self._seconds = max(self._last - started, least)

    def newest(self, before: int) -> Standing | None:
        """The newest whole standing of a step below `before`; None when there is none.

        The rollout goes on from it: later and damaged ones would only push out those that the
        rollout keeps from here on, and are deleted with what a killed writer left.
        """
        found, useless = None, list(self._folder.glob("*.aside"))
        for path in reversed(self._kept()):
            if (step := int(path.stem)) < before and (states := _read(path)):
                found = Standing(step, states)
                break
            useless.append(path)
        with suppress(OSError):
            for path in useless:
                path.unlink()
        return found

    def remove(self) -> None:
        """Delete the folder: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_due(self, standing: Standing) -> bool:
        if self._every is not None:
            return standing.step % self._every == 0
        return time.monotonic() - self._last >= self._cost(standing) / SHARE_OF_TIME

    def _cost(self, standing: Standing) -> float:
        """Seconds that keeping it takes: as the last time, or a guess."""
        size = sum(state.nbytes for state in standing.states)
        return self._seconds or size / _FIRST_GUESS_BYTES_PER_S

    def _kept(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.npz"))

    def _write(self, standing: Standing) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{standing.step:04d}.npz"
        aside = path.with_suffix(".aside")
        arrays = {str(age): state.cpu().numpy() for age, state in enumerate(standing.states)}
        shapes = np.array([array.shape for array in arrays.values()])
        try:
            with aside.open("wb") as file:
                np.savez(file, allow_pickle=False, shapes=shapes, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(self._folder)


def _read(path: Path) -> tuple[Tensor, ...] | None:
    """The states in a file, whose checksums are tested; None when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            shapes = kept["shapes"]
            states = [kept[str(age)] for age in range(len(shapes))]
    except Exception as error:  # noqa: BLE001 - readers of zip and npy raise a dozen kinds
        logger.warning("%s cannot be used: %r", path, error)
        return None
    faulty = [age for age, state in enumerate(states)
              if state.dtype != np.float32 or state.shape != tuple(shapes[age])]  # fmt: skip
    if faulty or not states:
        logger.warning("%s cannot be used: its states are not those that were kept", path)
        return None
    return tuple(map(torch.from_numpy, states))
