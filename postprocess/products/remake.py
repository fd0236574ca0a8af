"""Products of forecasts that are already stored: one forecast, or many with Dask."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.variables import STATIC_VARIABLES
from postprocess.products.cyclones.ecmwf_bufr import known_storms
from postprocess.products.grids import open_any
from postprocess.products.health import least_healthy
from postprocess.products.requests import DEFAULT_REQUEST, ProductRequest
from postprocess.products.stored import quarantined_in, stored_steps
from postprocess.products.suite import PRODUCTS, ProductOptions, ProductSuite

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class RemakeOptions:
    """The products, what is asked of them, the statics with the land mask, ECMWF's tracks.

    `minimum_members` must stay healthy, by default half of them.
    """

    only: tuple[str, ...] = PRODUCTS
    statics: Path | None = None
    track_file: Path | None = None
    enforce_health: bool = True
    request: ProductRequest = DEFAULT_REQUEST
    minimum_members: int | None = None


def remake_products(
    store: Path,
    folder: Path,
    options: RemakeOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make products of the forecast in `store` into `folder`; the paths written.

    Where the store names quarantined members, its health is always among the products, so that
    they leave the others too.
    `progress` is called with the step and the number of steps.
    """
    wanted = options or RemakeOptions()
    about = _about(store)
    known = [] if wanted.track_file is None else known_storms(wanted.track_file, about.cycle)
    suite_options = ProductOptions(
        only=_with_health(wanted.only, about),
        request=wanted.request,
        land=None if wanted.statics is None else land_share(wanted.statics),
        known_storms=tuple(known),
        rounding=about.attributes.get("rounding", "none"),
        enforce_health=wanted.enforce_health,
        least_members=least_healthy(about.members, wanted.minimum_members),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with ProductSuite(folder, suite_options) as suite:
        for step in stored_steps(store):
            suite.update(step)
            if progress is not None:
                progress(step.step, about.steps)
        return suite.finish(about.attributes)


def _with_health(only: tuple[str, ...], about: _About) -> tuple[str, ...]:
    added = ("health",) if quarantined_in(about.attributes) else ()
    return tuple(dict.fromkeys((*only, *added)))


def remake_many(
    stores: Sequence[Path],
    options: RemakeOptions,
    *,
    out: Path | None = None,
    scheduler: str | None = None,
) -> list[Path]:
    """Make the products of many stored forecasts, one Dask task each; all paths written.

    They go to `products` beside each store, or to `out`/<cycle>. `scheduler` is the address of a
    distributed scheduler; without it the forecasts run in processes of this machine. The folders
    must be visible to every worker. InputError when two stores are of one cycle and share `out`.
    """
    from dask.base import compute
    from dask.delayed import delayed

    folders = [_folder_of(store, out) for store in stores]
    if len(set(folders)) < len(folders):
        raise InputError("two of the stores are of the same cycle", remedy="leave --out away")
    tasks = [
        delayed(remake_products)(store, folder, options)
        for store, folder in zip(stores, folders, strict=True)
    ]
    if scheduler is None:
        made = compute(*tasks, scheduler="processes")  # type: ignore[no-untyped-call]
    else:
        made = _distributed(tasks, scheduler)
    return [path for paths in made for path in paths]


def _folder_of(store: Path, out: Path | None) -> Path:
    return store.parent / "products" if out is None else out / _about(store).cycle.id


def _distributed(tasks: Sequence[Any], scheduler: str) -> Sequence[list[Path]]:
    try:
        client_of = importlib.import_module("distributed").Client
    except ImportError as error:
        raise InputError(
            "the package distributed is not installed",
            where=scheduler,
            remedy="pip install distributed, or leave --scheduler away",
        ) from error
    try:
        with client_of(scheduler, timeout=_CONNECT_SECONDS) as client:
            made: Sequence[list[Path]] = client.gather(client.compute(list(tasks)))
    except OSError as error:
        raise InputError(
            f"no Dask scheduler answers: {error}", where=scheduler, remedy="check the address"
        ) from error
    return made


def land_share(statics: Path) -> NDArray[np.float32]:
    """Share of land (latitude, longitude) of a weights bundle's static_vars.npz."""
    if not statics.exists():
        raise InputError("no such file", where=str(statics), remedy="give static_vars.npz")
    with np.load(statics, allow_pickle=False) as bundle:
        mask: NDArray[np.float32] = bundle["data"][:, :, STATIC_VARIABLES.index("land_sea_mask")]
    return mask.T


@dataclass(frozen=True)
class _About:
    """What must be known of a store before its steps are read."""

    cycle: Cycle
    members: int
    steps: int
    attributes: Mapping[str, Any]


def _about(store: Path) -> _About:
    with open_any(store) as dataset:
        if "init_time" not in dataset.coords or "lead_time" not in dataset.coords:
            raise InputError("not a forecast", where=str(store), remedy="give a forecast.zarr")
        first = dataset.init_time.values.reshape(-1)[0].astype("datetime64[ns]")
        cycle = Cycle.from_datetime64(first)
        sizes = dataset.sizes
        return _About(cycle, sizes["number"], sizes["lead_time"], dict(dataset.attrs))
