"""Directory trees in ECMWF's layout, filled with analyses of the made-up atmosphere."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ingest.sources import Source, analysis_files, era_of
from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.decoys import Decoys, decoys
from ingest.synthetic.grib import Encoder, GribFile, Identity, model_messages
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.files import write_atomic, write_json_atomic

# Raise it whenever the same recipe would give other bytes: existing trees are then written anew.
GENERATOR = 3

_NEEDED_BYTES = 120_000_000  # of free disk per file, with all decoys
_SOURCE = Source("mirror", "mirror:/")

Progress = Callable[[Cycle, int, int], None]


@dataclass(frozen=True)
class Recipe:
    """What a file is made of; equal recipes give equal bytes on the same machine.

    `step` is a forecast of so many hours; it is perfect: the atmosphere at the valid time.
    """

    seed: int = 0
    decoys: Decoys = "light"
    step: int = 0
    generator: int = GENERATOR


@dataclass(frozen=True)
class MirrorFile:
    """A GRIB file of the tree and its index."""

    cycle: Cycle
    data: Path
    index: Path


def mirror_file(root: Path, cycle: Cycle, step: int = 0) -> MirrorFile:
    """Where the tree keeps `step` hours of a cycle: ECMWF's path and names of that era."""
    location = analysis_files(cycle, _SOURCE, step=step)
    data, index = (
        root / address.removeprefix(_SOURCE.address(""))
        for address in (location.data_url, location.index_url)
    )
    return MirrorFile(cycle, data, index)


def make_mirror_tree(
    root: Path,
    cycles: Sequence[Cycle],
    *,
    seed: int = 0,
    steps: Sequence[int] = (0,),
    kind: Decoys = "light",
    workers: int = 2,
    progress: Progress | None = None,
) -> tuple[MirrorFile, ...]:
    """Write the files of `cycles` under `root`, each whole or absent, the index after its data.

    A file that is there with the same recipe is left alone. `progress` is called with the cycle
    just finished, how many files are done, and how many there are. With more than one worker the
    calling program must be importable (the `if __name__ == "__main__"` rule of multiprocessing).
    Raises StoreError when the disk is too small, SourceError for a cycle no era holds.
    """
    jobs = [(cycle, Recipe(seed, kind, step)) for cycle in cycles for step in steps]
    files = tuple(mirror_file(root, cycle, recipe.step) for cycle, recipe in jobs)
    missing = [
        (job, file) for job, file in zip(jobs, files, strict=True) if not _is_made(file, job[1])
    ]
    root.mkdir(parents=True, exist_ok=True)
    _check_disk(root, len(missing))
    report = _Report(progress, total=len(jobs), done=len(jobs) - len(missing))
    if workers > 1 and len(missing) > 1:
        _make_in_processes(missing, min(workers, len(missing)), report)
    else:
        for (cycle, recipe), file in missing:
            write_file(file, cycle, recipe)
            report(cycle)
    return files


class _Report:
    def __init__(self, progress: Progress | None, *, total: int, done: int) -> None:
        self._progress, self._total, self._done = progress, total, done

    def __call__(self, cycle: Cycle) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(cycle, self._done, self._total)


def _make_in_processes(
    missing: Sequence[tuple[tuple[Cycle, Recipe], MirrorFile]], workers: int, report: _Report
) -> None:
    # Fresh processes: a fork would copy the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {
            pool.submit(write_file, file, cycle, recipe): cycle for (cycle, recipe), file in missing
        }
        for future in as_completed(running):
            future.result()
            report(running[future])


def _check_disk(root: Path, count: int) -> None:
    free = shutil.disk_usage(root).free
    if free < count * _NEEDED_BYTES:
        raise StoreError(
            f"{count * _NEEDED_BYTES / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            where=str(root),
            remedy="free some space or choose another directory",
        )


def recipe_path(file: MirrorFile) -> Path:
    """The hidden note beside a file that says how it was made."""
    return file.data.with_name(f".{file.data.stem}.recipe.json")


def _record(file: MirrorFile, recipe: Recipe) -> dict[str, object]:
    sizes = {path.name: path.stat().st_size for path in (file.data, file.index)}
    return asdict(recipe) | {"sizes": sizes}


def _is_made(file: MirrorFile, recipe: Recipe) -> bool:
    try:
        kept = json.loads(recipe_path(file).read_text())
        return bool(kept == _record(file, recipe))
    except (OSError, ValueError):
        return False


def write_file(file: MirrorFile, cycle: Cycle, recipe: Recipe) -> None:
    """Generate, encode and write one file, its index, and the note of how it was made."""
    grib = analysis_file(cycle, recipe)
    recipe_path(file).unlink(missing_ok=True)
    file.index.unlink(missing_ok=True)
    write_atomic(file.data, bytes(grib.content))
    write_atomic(file.index, grib.index())
    write_json_atomic(recipe_path(file), _record(file, recipe))


@lru_cache(maxsize=1)
def _native(seed: int) -> Atmosphere:
    return Atmosphere.native(seed)


def analysis_file(cycle: Cycle, recipe: Recipe) -> GribFile:
    """The GRIB file of a cycle in memory, messages in ECMWF's kind of disorder."""
    location = analysis_files(cycle, _SOURCE, step=recipe.step)
    atmosphere = _native(recipe.seed)
    fields = atmosphere.fields(cycle.init_time + np.timedelta64(recipe.step, "h"))
    geopotential = "z" if "z" in era_of(cycle).geopotential else "gh"
    messages = [
        *model_messages(fields, geopotential),
        *decoys(recipe.decoys, fields, atmosphere.planet),
    ]
    order = np.random.default_rng([recipe.seed, 51]).permutation(len(messages))
    grib = GribFile(Identity(cycle, location.stream, recipe.step))
    with Encoder(grib.identity) as encoder:
        for position in order:
            label, values = messages[position]
            grib.add(label, encoder.encode(label, values))
    return grib
