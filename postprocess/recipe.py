"""The recipe of a published run: all it takes to compute any member again, for years, in little.

The initial state (initial_state.zarr, not rounded) stays beside the products; the noise of a member
is a pure function of (init_time, number, step); the manifest keeps the digest of every shard even
after retention removed the shards. So a member can be computed again and proved equal to the bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, PublishError, StoreError
from mosaic_core.contract.files import sha256_file
from mosaic_core.contract.variables import CHANNELS
from postprocess.forecast_spec import ForecastSpec
from postprocess.manifest import Manifest, digest
from postprocess.objects.root import ObjectRoot
from postprocess.pointer import current_manifest
from postprocess.provenance import UNKNOWN_DEVICE, Provenance
from postprocess.publish import FORECAST
from postprocess.rows import shard_path
from postprocess.store import ForecastWriter

INITIAL_STATE = "initial_state.zarr"
_NEEDED = (
    "run_id", "date_created", "model_variant", "weights_sha256", "code_version", "precision",
    "batch_size", "input_analyses", "member_health", "comment", "members", "lead_hours", "rounding",
)  # fmt: skip
_DOWNLOADS_AT_ONCE = 8


@dataclass(frozen=True)
class Recipe:
    """A published run and the initial state it started from (INITIAL_STATE schema)."""

    cycle: Cycle
    manifest: Manifest
    initial_state: xr.Dataset

    @property
    def numbers(self) -> tuple[int, ...]:
        """The members that were published."""
        return tuple(self.manifest.provenance["members"])

    @property
    def steps(self) -> int:
        """Model steps after the analysis."""
        return len(self.manifest.provenance["lead_hours"]) - 1

    @property
    def rounding(self) -> str:
        """How the published fields were rounded."""
        return str(self.manifest.provenance["rounding"])

    @property
    def provenance(self) -> Provenance:
        """What was recorded about the making."""
        told = self.manifest.provenance
        return Provenance(
            run_id=told["run_id"],
            created=told["date_created"],
            model_variant=told["model_variant"],
            weights_sha256=told["weights_sha256"],
            code_version=told["code_version"],
            precision=told["precision"],
            input_analyses=tuple(told["input_analyses"]),
            member_health=tuple(told["member_health"]),
            comment=told["comment"],
            batch_size=told["batch_size"],
            device=told.get("device", UNKNOWN_DEVICE),
        )

    def spec(self, numbers: Sequence[int], made: Provenance | None = None) -> ForecastSpec:
        """What the rebuilt store of these members holds; InputError for one that never was.

        `made` tells how they are made this time, which decides whether a store is continued.
        """
        unknown = sorted(set(numbers) - set(self.numbers))
        if unknown or not numbers:
            raise InputError(
                f"members {unknown or 'none'} were not part of this run",
                where=f"cycle {self.cycle}",
                remedy=f"choose from {self.numbers[0]} to {self.numbers[-1]}",
            )
        leads = [np.timedelta64(h, "h") for h in self.manifest.provenance["lead_hours"]]
        return ForecastSpec(
            init_time=self.cycle.init_time,
            numbers=tuple(numbers),
            lead_times=tuple(lead.astype("timedelta64[ns]") for lead in leads),
            provenance=made or self.provenance,
            rounding=self.rounding,
        )


def read_recipe(root: ObjectRoot, cycle: Cycle) -> Recipe:
    """The recipe of the cycle's current run.

    InputError: the cycle is not published. PublishError: its initial state is not kept or damaged,
    or the manifest does not tell how it was made.
    """
    manifest = current_manifest(root, cycle)
    if manifest is None:
        raise InputError(
            f"cycle {cycle} is not published",
            where=root.address,
            remedy="`mosaic-ops catalog` lists what is",
        )
    if INITIAL_STATE not in manifest.stores:
        raise PublishError(
            "the run was published without its initial state",
            where=f"{root.address}/{manifest.path}",
            remedy="make the cycle again from its analyses: mosaic-ops run",
        )
    untold = [name for name in _NEEDED if name not in manifest.provenance]
    if untold:
        raise PublishError(
            f"the manifest does not tell {', '.join(untold)}: the run cannot be repeated",
            where=f"{root.address}/{manifest.path}",
            remedy="make the cycle again from its analyses: mosaic-ops run",
        )
    return Recipe(cycle, manifest, _fetched_store(root, manifest, INITIAL_STATE))


def rebuild(
    recipe: Recipe,
    numbers: Sequence[int],
    stream: Callable[[], Iterator[ForecastStep]],
    path: Path,
    made: Provenance,
) -> list[str]:
    """Write the members `numbers`, in that order, to the store `path`.

    `stream` gives the forecast of just these members from the recipe's initial state, and `made`
    tells what computes it: a store that was begun in another way is begun anew, a finished one is
    a StoreError before anything is computed. Returns the shards that are not what was published,
    by key; empty when all bits are the same.
    """
    with ForecastWriter(path, recipe.spec(numbers, made)) as writer:
        for step in () if writer.finished else stream():
            writer.write(step)
    return differing_shards(recipe, numbers, path)


def differing_shards(recipe: Recipe, numbers: Sequence[int], path: Path) -> list[str]:
    """Keys of the published shards whose digest is not that of the rebuilt one."""
    published = {record.key: record.sha256 for record in recipe.manifest.objects}
    found = []
    for place, number in enumerate(numbers):
        original = recipe.numbers.index(number)
        for channel in CHANNELS:
            key = shard_path(Path(FORECAST), channel, original).as_posix()
            if published.get(key) != sha256_file(shard_path(path, channel, place)):
                found.append(key)
    return found


def _fetched_store(root: ObjectRoot, manifest: Manifest, name: str) -> xr.Dataset:
    """A published store in memory, every object compared with the manifest."""
    records = [r for r in manifest.objects if r.key.startswith(f"{name}/")]

    def fetch(key: str, sha256: str, folder: Path) -> None:
        content = root.read(f"{manifest.path}/{key}")
        if digest(content) != sha256:
            raise StoreError(
                "content differs from its SHA-256",
                where=f"{root.address}/{manifest.path}/{key}",
                remedy="make the cycle again from its analyses: mosaic-ops run",
            )
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    with tempfile.TemporaryDirectory(prefix="mosaic-recipe-") as text:
        folder = Path(text)
        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(lambda record: fetch(record.key, record.sha256, folder), records))
        with xr.open_zarr(folder / name, chunks=None, consolidated=True) as dataset:
            return dataset.load()
