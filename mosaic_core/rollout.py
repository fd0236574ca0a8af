"""The forecast as a stream: all members at one lead, then the next lead.

The device holds the history and one step; the host holds the step that was handed over last.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import DeviceError, InputError, ModelError
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.placement import sent
from mosaic_core.noise import ensemble_noise
from mosaic_core.restart import Standing
from mosaic_core.rounding import bit_rounded
from mosaic_core.state import Clock, initial_state_from_dataset, initial_time

logger = logging.getLogger(__name__)

Fields = NDArray[np.float32]
Image = tuple[Tensor, Tensor]  # fields (member, channel, lat, lon); finite (member, channel) bool
HostImage = tuple[Fields, NDArray[np.bool_]]


class Engine(Protocol):
    """Whatever computes a step as `Mosaic.step` does: the network itself, or a faster form.

    States live on its `device`; `batch_size` is the number of members it takes unless told.
    """

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def step(self, history: Tensor, time_features: Tensor, noise: Tensor) -> Tensor:
        """history (member, time, point, channel), (4,), (member, noise) -> the next state.

        The result is copied before the next call and may be overwritten by it.
        """
        ...


def forecast(
    model: Mosaic,
    initial_state: xr.Dataset,
    *,
    numbers: Sequence[int],
    steps: int,
    batch_size: int | None = None,
    engine: Engine | None = None,
    to_host: Callable[[Iterable[Image]], Iterator[HostImage]] | None = None,
    refuse_faults: bool = True,
    start: Standing | None = None,
    keep: Callable[[Standing], None] | None = None,
    mantissa_bits: Sequence[int] | None = None,
) -> Iterator[ForecastStep]:
    """Step 0 (the analysis), then steps 1 to `steps`, each with all members `numbers`.

    `initial_state` follows INITIAL_STATE. `engine` computes the steps (default: the model itself),
    `batch_size` members at a time (default: the engine's); at one batch size a member has the
    same bits alone as in any ensemble, because the shape of a batch never varies.
    `to_host` turns images on the device into images on the host, in order; it may run ahead.
    Each step is checked on the device: the generator raises ModelError, naming member, channel
    and step, for a value that is not finite. With `refuse_faults` false it logs that instead:
    members are independent, and whoever screens them goes on with the others. A GPU that fails
    or disappears is a DeviceError with the members and the first step that is lost. `keep` is told
    after each step where the rollout stands; from such a `start` the stream goes on with the step
    after it, and with the same bits. `mantissa_bits` rounds the fields that are handed over, one
    number per channel; the rollout itself goes on unrounded. Arguments are checked before the
    first step is asked for.
    """
    chosen = _checked_numbers(numbers)
    if steps < 0 or (batch_size is not None and batch_size < 1):
        raise InputError(f"steps {steps} or batch size {batch_size} out of range")
    initial = initial_state_from_dataset(initial_state, model.config)
    init_time = initial_time(initial_state)
    physical = torch.from_numpy(initial.fields)
    if physical.shape[1] != model.geometry.points:
        raise ModelError(
            f"the initial state has {physical.shape[1]} points, the model {model.geometry.points}"
        )

    def noise(step: int) -> Tensor:
        return torch.from_numpy(ensemble_noise(init_time, chosen, step, model.config.noise_dim))

    ahead = predict(
        model,
        physical,
        initial.clock,
        noise,
        steps,
        batch_size=batch_size,
        engine=engine,
        start=start,
        keep=keep,
    )
    analysis = image(model, physical[-1:], mantissa_bits) if start is None else None
    images = (checked(image(model, state, mantissa_bits)) for state in ahead)
    first = start.step + 1 if start else 1
    with _device_failures(first, chosen):
        following = (to_host or copy_to_host)(images)
    numbered = _numbered(following, first, chosen)
    return _stream(model, init_time, chosen, analysis, numbered, refuse_faults)


def predict(
    model: Mosaic,
    physical: Tensor,
    clock: Clock,
    noise: Callable[[int], Tensor],
    steps: int,
    *,
    batch_size: int | None = None,
    engine: Engine | None = None,
    start: Standing | None = None,
    keep: Callable[[Standing], None] | None = None,
) -> Iterator[Tensor]:
    """States 1 to `steps` in SI units, each (member, point, channel) on the engine's device.

    `physical` (time, point, channel) is the shared history, oldest first, `clock` that of its
    newest state; `noise(step)` is (member, noise_dim), float32 on the CPU. With a `start` the
    first state is the one after it; `keep` is told where the rollout stands after each.
    """
    runner: Engine = engine or model
    statistics = model.normalization.to(runner.device)
    done = start.step if start else 0
    states = start.states if start else statistics.normalize(physical.to(runner.device))[:, None]
    history = deque((state.to(runner.device) for state in states), maxlen=len(physical))
    del start, states
    for _ in range(done):
        clock = clock.after(model.config.step_stride)
    for step in range(done + 1, steps + 1):
        following = advance(
            runner, history, clock.features(), noise(step), batch_size or runner.batch_size
        )
        history.append(following)
        clock = clock.after(model.config.step_stride)
        if keep is not None:
            keep(Standing(step, tuple(history)))
        yield statistics.denormalize(following)


@torch.no_grad()
def advance(
    engine: Engine,
    history: Iterable[Tensor],
    time_features: Tensor,
    noise: Tensor,
    batch_size: int,
) -> Tensor:
    """All members one step ahead, batch by batch: -> (member, point, channel), normalised.

    Every state of `history` is (member, point, channel), or (1, point, channel) while the
    members share it. A short last batch is filled up with its last member.
    """
    states, times = list(history), sent(time_features, engine.device)
    draws = sent(noise, engine.device)
    _, points, channels = states[0].shape
    following = states[0].new_empty(len(noise), points, channels)
    for first in range(0, len(noise), batch_size):
        stacked = torch.stack([_batch(state, first, batch_size) for state in states], dim=1)
        part = following[first : first + batch_size]
        result = engine.step(stacked, times, _batch(draws, first, batch_size))
        part.copy_(result[: len(part)])
    return following


def _batch(members: Tensor, first: int, size: int) -> Tensor:
    """Members `first` and on, `size` of them: the only or the last one repeated to fill."""
    chosen = members if len(members) == 1 else members[first : first + size]
    last = chosen[-1:].expand(size - len(chosen), *chosen.shape[1:])
    return torch.cat([chosen, last]) if len(last) else chosen


def image(model: Mosaic, state: Tensor, mantissa_bits: Sequence[int] | None) -> Tensor:
    """(member, point, channel) -> (member, channel, latitude, longitude), contiguous."""
    grid = (model.geometry.longitudes, model.geometry.latitudes)
    maps = state.unflatten(1, grid).permute(0, 3, 2, 1).contiguous()
    return maps if mantissa_bits is None else bit_rounded(maps, mantissa_bits)


def checked(fields: Tensor) -> Image:
    """The fields and, for every map, whether all its values are finite."""
    # A sum is not finite when one of its values is not, and needs no second map in memory.
    return fields, fields.sum(dim=(2, 3)).isfinite()


def copy_to_host(images: Iterable[Image]) -> Iterator[HostImage]:
    """Each image as numpy arrays, one at a time."""
    return ((fields.cpu().numpy(), finite.cpu().numpy()) for fields, finite in images)


def _numbered(
    images: Iterator[HostImage], first: int, numbers: tuple[int, ...]
) -> Iterator[tuple[int, HostImage]]:
    """Images with their steps."""
    for step in count(first):
        with _device_failures(step, numbers):
            found = next(images, None)
        if found is None:
            return
        yield step, found


@contextmanager
def _device_failures(step: int, numbers: tuple[int, ...]) -> Iterator[None]:
    """A failure of the device is a DeviceError with the members and the step that it costs."""
    try:
        yield
    except RuntimeError as error:
        if not _of_the_device(error):
            raise
        raise DeviceError(
            f"the GPU failed: {str(error).partition(chr(10))[0]}; lost from here on: "
            f"members {', '.join(map(str, numbers))}",
            where=f"forecast step {step}",
            remedy="look at the GPU (nvidia-smi), then run the rest on one that works",
        ) from error


def _of_the_device(error: RuntimeError) -> bool:
    kinds = (torch.AcceleratorError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "CUDA" in str(error)


def _stream(
    model: Mosaic,
    init_time: np.datetime64,
    numbers: tuple[int, ...],
    analysis: Tensor | None,
    following: Iterable[tuple[int, HostImage]],
    refuse_faults: bool,
) -> Iterator[ForecastStep]:
    channels = model.config.variables
    if analysis is not None:
        one = analysis.cpu().numpy()
        shared = np.broadcast_to(one, (len(numbers), *one.shape[1:]))
        yield ForecastStep(init_time, 0, _lead_time(model, 0), numbers, channels, shared)
    for step, (fields, finite) in following:
        try:
            check_finite(finite, step, numbers, channels)
        except ModelError as fault:
            if refuse_faults:
                raise
            logger.warning("%s", fault)
        yield ForecastStep(init_time, step, _lead_time(model, step), numbers, channels, fields)


def _lead_time(model: Mosaic, step: int) -> np.timedelta64:
    return np.timedelta64(step * model.config.step_hours, "h").astype("timedelta64[ns]")


def check_finite(
    finite: NDArray[np.bool_], step: int, numbers: tuple[int, ...], channels: tuple[str, ...]
) -> None:
    """ModelError naming the first of the maps (member, channel) that are not `finite`."""
    faulty = np.argwhere(~finite)
    if len(faulty):
        listed = ", ".join(
            f"member {numbers[member]} {channels[channel]}" for member, channel in faulty[:5]
        )
        raise ModelError(
            f"{len(faulty)} maps have values that are not finite: {listed}",
            where=f"forecast step {step}",
            remedy="check the weights, and float32 instead of a narrower type",
        )


def _checked_numbers(numbers: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(int(number) for number in numbers)
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise InputError(
            f"member numbers {list(chosen)} must be distinct and not negative, at least one"
        )
    return chosen
