"""Products of forecasts that are already stored: one forecast, or many with Dask."""

from __future__ import annotations

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
from postprocess.products.stored import stored_steps
from postprocess.products.suite import PRODUCTS, ProductOptions, ProductSuite


def remake_products(
    store: Path,
    folder: Path,
    *,
    only: Sequence[str] = PRODUCTS,
    statics: Path | None = None,
    track_file: Path | None = None,
    enforce_health: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make products of the forecast in `store` into `folder`; the paths written.

    `statics` gives the land-sea mask, `track_file` ECMWF's tracks of the same cycle. `progress`
    is called with the step and the number of steps.
    """
    about = _about(store)
    storms = [] if track_file is None else known_storms(track_file, about.cycle)
    options = ProductOptions(
        only=tuple(only),
        land=None if statics is None else land_share(statics),
        known_storms=tuple(storms),
        enforce_health=enforce_health,
    )
    folder.mkdir(parents=True, exist_ok=True)
    suite = ProductSuite(folder, options)
    for step in stored_steps(store):
        suite.update(step)
        if progress is not None:
            progress(step.step, about.steps)
    return suite.finish(about.attributes)


def remake_many(
    stores: Sequence[Path],
    folder_of: Callable[[Path], Path],
    *,
    only: Sequence[str] = PRODUCTS,
    scheduler: str | None = None,
) -> dict[Path, list[Path]]:
    """Make the products of many stored forecasts, one Dask task each.

    `scheduler` is the address of a distributed scheduler; without it the forecasts run in
    processes of this machine. The folders must be visible to every worker.
    """
    from dask.base import compute
    from dask.delayed import delayed

    tasks = [
        delayed(remake_products)(store, folder_of(store), only=tuple(only)) for store in stores
    ]
    if scheduler is None:
        made = compute(*tasks, scheduler="processes")  # type: ignore[no-untyped-call]
    else:
        from distributed import Client

        with Client(scheduler) as client:
            made = client.gather(client.compute(tasks))
    return dict(zip(stores, made, strict=True))


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
    steps: int
    attributes: Mapping[str, Any]


def _about(store: Path) -> _About:
    with open_any(store) as dataset:
        if "init_time" not in dataset.coords or "lead_time" not in dataset.coords:
            raise InputError("not a forecast", where=str(store), remedy="give a forecast.zarr")
        first = dataset.init_time.values.reshape(-1)[0].astype("datetime64[ns]")
        cycle = Cycle.from_datetime64(first)
        return _About(cycle, dataset.sizes["lead_time"], dict(dataset.attrs))
