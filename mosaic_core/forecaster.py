"""A model where it runs: the network itself, or its fast form on a GPU, behind one door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.devices import devices_named, forecast_on
from mosaic_core.model.checkpoint import load_model
from mosaic_core.model.fast import FastEngine, accelerated
from mosaic_core.model.mosaic import Mosaic, Provenance
from mosaic_core.model.placement import placement
from mosaic_core.restart import Standing
from mosaic_core.rollout import forecast


@dataclass(frozen=True)
class Forecaster:
    """A loaded model and what computes its steps: one fast engine for each GPU, or, without any,
    the network itself.

    `batch_size` is as many members as decide the bits of each: those that the network computes at
    once. With engines it is 1, because there a batch of any size gives the same.
    """

    model: Mosaic
    engines: tuple[FastEngine, ...]
    batch_size: int

    @classmethod
    def load(
        cls,
        weights: Path,
        variant: str,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        precision: str = "float16",
        members: int | None = None,
    ) -> Forecaster:
        """The model of a bundle on `device` (auto, cpu, cuda, cuda:N); without a number, members
        are split over all GPUs of one kind.

        `batch_size` members are computed at once: on a GPU by default as many as pay and fit,
        and never more than its share of the `members` to come, on a CPU one. `precision` is that
        of the GPU's matrices, see `mosaic_core.model.fast`. ModelError for unusable weights,
        device, precision or memory.
        """
        place, dtype = placement(device)
        model = load_model(weights, variant)
        places = devices_named(device)
        share = -(-members // len(places)) if members else None
        made = [
            accelerated(model, gpu, batch_size=batch_size, precision=precision, members=share)
            for gpu in places
        ]
        engines = tuple(engine for engine in made if engine is not None)
        if not engines:
            model = model.to(device=place, dtype=dtype)
        return cls(model, engines, 1 if engines else batch_size or 1)

    @property
    def provenance(self) -> Provenance:
        """Files the model was loaded from, their licence, and whether they were trained."""
        assert self.model.provenance is not None, "a model from a bundle knows its files"
        return self.model.provenance

    @property
    def weights_sha256(self) -> str:
        """Digest over the names and digests of the files that the model was loaded from."""
        text = json.dumps(dict(self.provenance.sha256), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def precision(self) -> str:
        """Type of the arithmetic: float32, float16, or int8 where some of it is."""
        if self.engines:
            return self.engines[0].precision
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The kind of device: the same bits come from the same kind only."""
        device = (self.engines[0] if self.engines else self.model).device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def forecast(
        self,
        initial_state: xr.Dataset,
        *,
        numbers: Sequence[int],
        steps: int,
        start: Standing | None = None,
        keep: Callable[[Standing], None] | None = None,
        mantissa_bits: Sequence[int] | None = None,
    ) -> Iterator[ForecastStep]:
        """Step 0, the analysis, then steps 1 to `steps`; see `mosaic_core.rollout.forecast`.

        Values that are not finite are logged and passed on: the health of members is a product.
        """
        if self.engines:
            return forecast_on(
                self.engines,
                self.model,
                initial_state,
                numbers=numbers,
                steps=steps,
                refuse_faults=False,
                start=start,
                keep=keep,
                mantissa_bits=mantissa_bits,
            )
        return forecast(
            self.model,
            initial_state,
            numbers=numbers,
            steps=steps,
            batch_size=self.batch_size,
            refuse_faults=False,
            start=start,
            keep=keep,
            mantissa_bits=mantissa_bits,
        )
