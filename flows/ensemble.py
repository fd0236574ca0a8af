"""The rollout with everything that is derived while it streams by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from flows.figures import draw_figures
from flows.progress import Advance
from flows.provenance import provenance, run_id
from flows.settings import Settings
from flows.storms import storms_in
from flows.watch.canary import refuse_unaccepted
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DeviceError
from mosaic_core.contract.files import remove_asides, write_json_atomic
from mosaic_core.contract.variables import STATIC_VARIABLES
from postprocess.forecast_spec import ForecastSpec
from postprocess.points import write_points
from postprocess.product_store import write_product
from postprocess.products.health import least_healthy
from postprocess.products.suite import ProductOptions, ProductSuite
from postprocess.rounding import mantissa_bits
from postprocess.store import ForecastWriter

if TYPE_CHECKING:
    from mosaic_core.forecaster import Forecaster
    from mosaic_core.restart import RestartFolder

COMPLETE = "complete.json"

Finishing = Callable[[], AbstractContextManager[object]]
"""Entered once the last step is stored: what follows is products and figures, without the GPU."""


@dataclass(frozen=True)
class EnsembleRun:
    """One run of the ensemble. `name` stands for everything that decides its bits."""

    cycle: Cycle
    state: xr.Dataset
    forecaster: Forecaster
    settings: Settings
    name: str

    @classmethod
    def prepare(cls, cycle: Cycle, state_path: Path, settings: Settings) -> EnsembleRun:
        """The run of `cycle` from a stored initial state, its model loaded and accepted."""
        from mosaic_core.forecaster import Forecaster

        state = read_state(state_path)
        forecaster = Forecaster.load(
            settings.weights,
            settings.variant,
            device=settings.device,
            batch_size=settings.batch_size,
            precision=settings.precision,
            members=len(settings.numbers),
        )
        refuse_unaccepted(forecaster.provenance.sha256, settings)
        name = run_id(cycle, settings, state, forecaster)
        return cls(cycle, state, forecaster, settings, name)

    @property
    def folder(self) -> Path:
        """Where the stores grow; named after the run, so that no two runs mix."""
        return self.settings.staging / self.cycle.id / self.name

    def spec(self) -> ForecastSpec:
        """What the forecast store will hold."""
        leads = [self.settings.model_variant.lead_time(step) for step in self.steps]
        return ForecastSpec(
            init_time=self.cycle.init_time,
            numbers=self.settings.numbers,
            lead_times=tuple(leads),
            provenance=provenance(self.settings, self.state, self.name, self.forecaster),
            rounding=self.settings.rounding,
        )

    @property
    def steps(self) -> range:
        """Step 0, the analysis, to the last."""
        return range(self.settings.steps + 1)

    def stream(self, writer: ForecastWriter) -> Iterator[ForecastStep]:
        """The forecast, all members at one lead after the other; what an earlier attempt left
        comes from its store, and the model goes on from its last restart state."""
        if writer.finished:
            return writer.stored(writer.completed)
        start = self.restart.newest(before=writer.completed)
        ahead = self.forecaster.forecast(
            self.state,
            numbers=self.settings.numbers,
            steps=self.settings.steps,
            start=start,
            keep=self.restart.keep,
            mantissa_bits=mantissa_bits(self.settings.rounding),
        )
        return chain(writer.stored(start.step + 1), ahead) if start else ahead

    @cached_property
    def restart(self) -> RestartFolder:
        """Where the rollout stands, kept now and then."""
        from mosaic_core.restart import RestartFolder

        return RestartFolder(self.folder / "restart", every=self.settings.restart_steps)


def run_ensemble(
    cycle: Cycle, state: Path, settings: Settings, advance: Advance, finishing: Finishing
) -> Path:
    """Forecast from the stored initial state; the folder with every finished store of the run.

    The caller holds the lock of the cycle: leftovers of killed writers go before it is complete.
    """
    run = EnsembleRun.prepare(cycle, state, settings)
    if not _is_complete(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
        _stream_into_stores(run, advance, finishing)
        run.restart.remove()
        remove_asides(run.folder)
        write_json_atomic(run.folder / COMPLETE, {"run_id": run.name})
    return run.folder


def read_state(path: Path) -> xr.Dataset:
    """A stored initial state, in memory."""
    with xr.open_zarr(path, chunks=None, consolidated=True) as dataset:
        return dataset.load()


def _is_complete(folder: Path) -> bool:
    return (folder / COMPLETE).exists()


def _stream_into_stores(run: EnsembleRun, advance: Advance, finishing: Finishing) -> None:
    spec, store = run.spec(), run.folder / "forecast.zarr"
    with ProductSuite(run.folder, product_options(run)) as products:
        with ForecastWriter(store, spec) as writer:
            with _resumable(run, writer):
                for step in run.stream(writer):
                    writer.write(step)
                    products.update(step)
                    advance(step.step, run.settings.steps, f"lead {_hours(step)} h")
            health = [f"member {number}: {why}" for number, why in products.quarantined().items()]
            writer.annotate(member_health=health)
        with finishing():
            write_points(store, run.folder / "points.zarr", spec)
            attributes = {**spec.attributes(), "member_health": health, **_notice(run.settings)}
            write_product(run.folder / "initial_state.zarr", run.state, attributes)
            products.finish(attributes)
            draw_figures(run.folder, run.cycle, run.settings)


@contextmanager
def _resumable(run: EnsembleRun, writer: ForecastWriter) -> Iterator[None]:
    """A failure of the GPU says what is stored and how the run goes on."""
    try:
        yield
    except DeviceError as error:
        standing = run.restart.newest(before=writer.completed)
        raise DeviceError(
            f"{error.what}; {writer.completed} of {len(run.steps)} leads are stored in "
            f"{run.folder}",
            where=f"cycle {run.cycle}, {error.where}",
            remedy=f"mosaic-ops run {run.cycle} with the same settings goes on from step "
            f"{standing.step if standing else 0}, on a GPU that works (--device cuda:N)",
        ) from error


def _notice(settings: Settings) -> dict[str, str]:
    """For products, whose comments are their own."""
    return {"notice": settings.notice} if settings.notice else {}


def product_options(run: EnsembleRun) -> ProductOptions:
    """What is derived, and from how many members at least.

    Members of a model that was never trained are nonsense on purpose: they are judged, and stay.
    """
    settings = run.settings
    return ProductOptions(
        request=settings.products,
        land=land_sea_mask(settings.weights),
        known_storms=storms_in(run.state.attrs),
        rounding=settings.rounding,
        enforce_health=run.forecaster.provenance.trained is not False,
        least_members=least_healthy(settings.members, settings.minimum_members),
    )


def land_sea_mask(weights: Path) -> NDArray[np.float32]:
    """Share of land of the model's statics, (latitude, longitude)."""
    with np.load(weights / "static_vars.npz", allow_pickle=False) as statics:
        mask: NDArray[np.float32] = statics["data"][:, :, STATIC_VARIABLES.index("land_sea_mask")]
    return mask.T


def _hours(step: ForecastStep) -> int:
    return int(step.lead_time / np.timedelta64(1, "h"))
