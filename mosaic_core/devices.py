"""One rollout on several GPUs of a host: the members are split, the stream is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
import xarray as xr

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError
from mosaic_core.model.fast import FastEngine
from mosaic_core.model.fast_output import HostImages, PinnedRing
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.placement import placement
from mosaic_core.restart import Standing
from mosaic_core.rollout import forecast


def visible_gpus() -> list[torch.device]:
    """Every CUDA GPU that this process may use."""
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def devices_named(name: str) -> list[torch.device]:
    """Where 'auto', 'cpu', 'cuda' or 'cuda:N' runs: without a number, every GPU of the kind of
    the first, because the same bits come from the same kind only."""
    first, _ = placement(name)
    if first.type != "cuda" or ":" in str(first):
        return [first]
    kind = torch.cuda.get_device_name(0)
    return [gpu for gpu in visible_gpus() if torch.cuda.get_device_name(gpu) == kind]


def forecast_on(
    engines: Sequence[FastEngine],
    model: Mosaic,
    initial_state: xr.Dataset,
    *,
    numbers: Sequence[int],
    steps: int,
    refuse_faults: bool = True,
    start: Standing | None = None,
    keep: Callable[[Standing], None] | None = None,
    mantissa_bits: Sequence[int] | None = None,
) -> Iterator[ForecastStep]:
    """As `rollout.forecast`, every engine with its share of the members and a thread of its own.

    `keep` is called only where one engine has all members: several are done within seconds. A
    member has the same bits on any engine where the GPUs are of one kind.
    """
    if not engines:
        raise InputError("no GPU to run on", remedy="use the device cpu")
    for engine in engines:  # one after the other: compilation is not made for threads
        engine.prepare()
    places = np.array_split(np.arange(len(numbers)), len(engines))
    shares = [slice(part[0], part[-1] + 1) for part in places if len(part)]
    images = HostImages(len(numbers))

    def begun(engine: FastEngine, share: slice) -> Iterator[ForecastStep]:
        with torch.cuda.device(engine.device):
            return forecast(
                model,
                initial_state,
                numbers=numbers[share],
                steps=steps,
                engine=engine,
                to_host=PinnedRing(images, share),
                refuse_faults=refuse_faults,
                start=start.share(share) if start else None,
                keep=keep if len(shares) == 1 else None,
                mantissa_bits=mantissa_bits,
            )

    used = engines[: len(shares)]
    streams = [begun(engine, share) for engine, share in zip(used, shares, strict=True)]
    devices = [engine.device for engine in used]
    if len(streams) == 1:
        return _alone(streams[0], devices[0])
    return _together(streams, devices, images, first=start.step + 1 if start else 1)


def _alone(stream: Iterator[ForecastStep], device: torch.device) -> Iterator[ForecastStep]:
    while (step := _next_on(stream, device)) is not None:
        yield step


def _together(
    streams: list[Iterator[ForecastStep]],
    devices: list[torch.device],
    images: HostImages,
    first: int,
) -> Iterator[ForecastStep]:
    """Steps of all members; `first` is the step of image 0."""
    with ThreadPoolExecutor(len(streams)) as pool:
        while True:
            arrived = list(pool.map(_next_on, streams, devices))
            parts = [part for part in arrived if part is not None]
            if len(parts) < len(streams):
                return
            numbers = tuple(chain.from_iterable(part.numbers for part in parts))
            if parts[0].step < first:  # the analysis, which all members share
                one = parts[0].fields[:1]
                fields = np.broadcast_to(one, (len(numbers), *one.shape[1:]))
            else:
                fields = images.fields(parts[0].step - first)
            yield replace(parts[0], numbers=numbers, fields=fields)


def _next_on(stream: Iterator[ForecastStep], device: torch.device) -> ForecastStep | None:
    with torch.cuda.device(device):
        return next(stream, None)
