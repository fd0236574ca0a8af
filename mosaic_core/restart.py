"""Where a rollout stands, kept on disk now and then, so that a crash does not cost the whole run.

Member noise is a function of (cycle, member, step), so the normalised states are all there is to
keep: a rollout that starts from them has the same bits as one that was never interrupted.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import zipfile
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

        A full disk costs the standing, never the run.
        """
        if not self._is_due(standing):
            return
        started = time.monotonic()
        try:
            self._write(standing)
            for path in self._kept()[:-_KEPT]:
                path.unlink()
        except OSError as error:
            logger.warning("no restart state of step %d: %s", standing.step, error)
        self._last = time.monotonic()
        self._seconds = self._last - started

    def newest(self, before: int) -> Standing | None:
        """The newest whole standing of a step below `before`; None when there is none.

        One that is damaged is passed over.
        """
        for path in reversed(self._kept()):
            if (step := int(path.stem)) < before and (states := _read(path)):
                return Standing(step, states)
        return None

    def remove(self) -> None:
        """Delete the folder: the run is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_due(self, standing: Standing) -> bool:
        if self._every is not None:
            return standing.step % self._every == 0
        size = sum(state.nbytes for state in standing.states)
        cost = self._seconds or size / _FIRST_GUESS_BYTES_PER_S
        return time.monotonic() - self._last >= cost / SHARE_OF_TIME

    def _kept(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.npz"))

    def _write(self, standing: Standing) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{standing.step:04d}.npz"
        aside = path.with_suffix(".aside")
        arrays = {str(age): state.cpu().numpy() for age, state in enumerate(standing.states)}
        with aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_directory(self._folder)


def _read(path: Path) -> tuple[Tensor, ...] | None:
    """The states in a file, whose checksums are tested; None when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return tuple(torch.from_numpy(kept[str(age)]) for age in range(len(kept.files)))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be used: %s", path, error)
        return None
