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
from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.model.fast import FastEngine
from mosaic_core.model.fast_output import PinnedRing
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

    `keep` is called only where one engine has all members: several are done within seconds.

    The engines have the same batch size; a member has the same bits on any of them where the
    GPUs are of one kind.
    """
    if not engines:
        raise InputError("no GPU to run on", remedy="use the device cpu")
    if len({engine.batch_size for engine in engines}) > 1:
        raise ModelError(
            f"the GPUs fit batches of {[engine.batch_size for engine in engines]} members: a "
            "member would not have the same bits on each",
            remedy="free their memory, or give --batch-size",
        )
    for engine in engines:  # one after the other: compilation is not made for threads
        engine.prepare()
    places = np.array_split(np.arange(len(numbers)), len(engines))
    shares = [slice(part[0], part[-1] + 1) for part in places if len(part)]
    streams = [
        forecast(
            model,
            initial_state,
            numbers=numbers[share],
            steps=steps,
            engine=engine,
            to_host=PinnedRing(),
            refuse_faults=refuse_faults,
            start=start.share(share) if start else None,
            keep=keep if len(shares) == 1 else None,
            mantissa_bits=mantissa_bits,
        )
        for engine, share in zip(engines, shares, strict=False)
    ]
    if len(streams) == 1:
        return streams[0]
    return _together(streams, [engine.device for engine in engines])


def _together(
    streams: list[Iterator[ForecastStep]], devices: list[torch.device]
) -> Iterator[ForecastStep]:
    with ThreadPoolExecutor(len(streams)) as pool:
        while True:
            parts = list(pool.map(_next_on, streams, devices))
            arrived = [part for part in parts if part is not None]
            if len(arrived) < len(streams):
                return
            yield _joined(arrived)


def _next_on(stream: Iterator[ForecastStep], device: torch.device) -> ForecastStep | None:
    with torch.cuda.device(device):
        return next(stream, None)


def _joined(parts: list[ForecastStep]) -> ForecastStep:
    return replace(
        parts[0],
        numbers=tuple(chain.from_iterable(part.numbers for part in parts)),
        fields=np.concatenate([part.fields for part in parts]),
    )
