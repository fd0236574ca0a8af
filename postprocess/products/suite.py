"""All products of one forecast, fed by one stream and written into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.files import write_atomic, write_json_atomic
from postprocess.product_store import write_product
from postprocess.products.cyclones.formats import write_tracks
from postprocess.products.cyclones.identity import KnownStorm
from postprocess.products.cyclones.probability import plumes, probabilities
from postprocess.products.cyclones.stream import CycloneTracker
from postprocess.products.cyclones.thresholds import TRACKER_VERSIONS
from postprocess.products.ensemble import STATISTICS, EnsembleStatistics
from postprocess.products.exceedance import ExceedanceProbabilities
from postprocess.products.health import HealthLimits, MemberHealth
from postprocess.products.indices import ClimateIndices
from postprocess.products.lanes import Consumer, Lanes
from postprocess.products.points import PointSeries
from postprocess.products.requests import DEFAULT_REQUEST, ProductRequest
from postprocess.products.spectra.scalars import ScalarSpectra
from postprocess.products.spectra.stream import KineticEnergySpectra
from postprocess.products.stream import StreamProduct, forecast_coordinates

PRODUCTS = (
    "ensemble", "probabilities", "indices", "meteograms", "spectra", "scalar_spectra", "cyclones",
    "health",
)  # fmt: skip


def _lane_of(name: str) -> str:
    """The statistics take as long as all others together; more threads only share their caches."""
    return name if name == "ensemble" else "others"


@dataclass(frozen=True)
class ProductOptions:
    """What is made and from what.

    `only` chooses among PRODUCTS. `rounding` is that of the forecast store: the products are then
    made from the stored values, to the bit. `enforce_health` false keeps sick members in.
    `reviewed` false lets stores differ from their reviewed structure, to make that anew.
    """

    only: tuple[str, ...] = PRODUCTS
    statistics: tuple[str, ...] = STATISTICS
    request: ProductRequest = DEFAULT_REQUEST
    land: NDArray[np.floating] | None = field(default=None, repr=False)
    known_storms: tuple[KnownStorm, ...] = ()
    rounding: str = "none"
    limits: HealthLimits = field(default_factory=HealthLimits)
    enforce_health: bool = True
    reviewed: bool = True
    least_members: int = 2

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - set(PRODUCTS))
        if unknown or not self.only:
            raise InputError(
                f"no such products: {', '.join(unknown) or 'none asked for'}",
                remedy=f"choose from {', '.join(PRODUCTS)}",
            )
        if self.only == ("indices",) and self.request.climatology is None:
            raise InputError(
                "indices need a climatology",
                where="products.climatology",
                remedy="name its file or store in the table [products]",
            )

    @property
    def streamed(self) -> tuple[str, ...]:
        """The products that take steps; indices only where there is a climatology."""
        absent = {"health"} if self.request.climatology else {"health", "indices"}
        return tuple(name for name in self.only if name not in absent)


class ProductSuite:
    """The chosen products of one forecast, made beside it in threads: a context manager.

    `update` takes every step and returns once a copy of it is made; it waits while two copies are
    in work. A product's error is raised by the next `update` or by `finish`. `finish` writes
    ensemble.zarr, probabilities.zarr, indices.zarr (where there is a climatology), meteograms.zarr,
    spectra.zarr, scalar_spectra.zarr, tracks.* with cyclone_probability.zarr and plumes.zarr, and
    health.csv with health.json into `folder`.
    Memory holds two leads and what the small products keep.
    """

    def __init__(self, folder: Path, options: ProductOptions | None = None) -> None:
        self._folder = folder
        self._options = options or ProductOptions()
        self._health = MemberHealth(
            self._options.limits,
            least_members=self._options.least_members,
            enforce=self._options.enforce_health and "health" in self._options.only,
        )
        self._products = {name: self._make(name) for name in self._options.streamed}
        self._lanes = Lanes(
            self._health.screen if "health" in self._options.only else lambda step: step,
            self._shared_out(),
        )
        self._started_with: tuple[int, ...] = ()
        self._init_time: np.datetime64 = np.datetime64("NaT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.close()

    def quarantined(self) -> Mapping[int, str]:
        """Members that have left, and why; waits for the steps that are still in work."""
        self._lanes.drain()
        return self._health.quarantined

    def update(self, step: ForecastStep) -> None:
        """Take a step, as stored: its healthy members go to every product."""
        self._started_with = self._started_with or step.numbers
        if len(self._started_with) < 2 and self._options.least_members > 1:
            raise StoreError(
                f"{len(self._started_with)} member, an ensemble has at least 2",
                where="products",
                remedy="give a forecast with more members",
            )
        self._lanes.feed(step)
        self._init_time = step.init_time

    def finish(self, attributes: Mapping[str, Any]) -> list[Path]:
        """Write every product with the run's `attributes`; the paths, in the order of PRODUCTS.

        StoreError when there was no step.
        """
        self._lanes.drain()
        if not self._started_with:
            raise StoreError("the forecast has no step", where="products")
        writers = self._writers()
        making = {
            name: self._lanes.run(_lane_of(name), writers[name], attributes)
            for name in self._products
        }
        written = {name: future.result() for name, future in making.items()}
        if "health" in self._options.only:
            written["health"] = self._write_health(attributes)
        return [path for name in PRODUCTS for path in written.get(name, [])]

    def _shared_out(self) -> dict[str, list[Consumer]]:
        """What every lane does with a step."""
        shared: dict[str, list[Consumer]] = {}
        for name, product in self._products.items():
            shared.setdefault(_lane_of(name), []).append(product.update)
        return shared

    def _make(self, name: str) -> StreamProduct:
        o, asked = self._options, self._options.request
        makers: dict[str, Callable[[], StreamProduct]] = {
            "ensemble": lambda: EnsembleStatistics(
                self._folder / "ensemble.zarr",
                o.statistics,
                asked.quantiles,
                rounding=o.rounding,
            ),
            "probabilities": lambda: ExceedanceProbabilities(asked.events, asked.window_hours),
            "indices": lambda: ClimateIndices(Path(str(asked.climatology))),
            "meteograms": lambda: PointSeries(
                asked.stations, asked.point_quantities, asked.quantiles
            ),
            "spectra": lambda: KineticEnergySpectra(asked.spectra_levels),
            "scalar_spectra": lambda: ScalarSpectra(asked.spectra_scalars),
            "cyclones": lambda: CycloneTracker(
                land=o.land,
                known=o.known_storms,
                thresholds=TRACKER_VERSIONS[asked.tracker_version],
            ),
        }
        return makers[name]()

    def _writers(self) -> dict[str, Callable[[Mapping[str, Any]], list[Path]]]:
        return {
            "ensemble": self._write_ensemble,
            "probabilities": lambda attributes: [self._write("probabilities", attributes)],
            "indices": lambda attributes: [self._write("indices", attributes)],
            "meteograms": lambda attributes: [self._write("meteograms", attributes)],
            "spectra": lambda attributes: [self._write("spectra", attributes)],
            "scalar_spectra": lambda attributes: [self._write("scalar_spectra", attributes)],
            "cyclones": self._write_cyclones,
        }

    def _template(self, name: str) -> str | None:
        return name if self._options.reviewed else None

    def _write(self, name: str, attributes: Mapping[str, Any]) -> Path:
        path = self._folder / f"{name}.zarr"
        write_product(
            path, self._products[name].result(), attributes, template=self._template(name)
        )
        return path

    def _write_ensemble(self, attributes: Mapping[str, Any]) -> list[Path]:
        ensemble = self._products["ensemble"]
        assert isinstance(ensemble, EnsembleStatistics)
        return [ensemble.finish(attributes, template=self._template("ensemble"))]

    def _write_cyclones(self, attributes: Mapping[str, Any]) -> list[Path]:
        tracker = self._products["cyclones"]
        assert isinstance(tracker, CycloneTracker)
        tracks = tracker.result()
        written = write_tracks(tracks, self._folder)
        for name, dataset in (
            ("cyclone_probability", probabilities(tracks, tracker.members)),
            ("plumes", plumes(tracks, tracker.members)),
        ):
            path = self._folder / f"{name}.zarr"
            started = forecast_coordinates(self._init_time, [])["init_time"]
            timed = dataset.assign_coords(init_time=started)
            write_product(path, timed, attributes, template=self._template(name))
            written.append(path)
        return written

    def _write_health(self, attributes: Mapping[str, Any]) -> list[Path]:
        table, report = self._folder / "health.csv", self._folder / "health.json"
        text = self._health.result().to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomic(table, text.encode())
        left = {str(number): reason for number, reason in sorted(self._health.quarantined.items())}
        write_json_atomic(
            report,
            {
                "run": {name: str(value) for name, value in attributes.items()},
                "members": len(self._started_with),
                "healthy_members": len(self._started_with) - len(left),
                "flagged": bool(left) or len(self._health.result()) > 0,
                "quarantined": left,
            },
        )
        return [table, report]
