from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.contract.variables import CHANNEL_NAMES
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.noise import ensemble_noise
from mosaic_core.rollout import HostImage, Image, copy_to_host, forecast
from mosaic_core.state import Clock, initial_state_from_dataset


class Watched:
    """An engine that records the size of every batch."""

    device = torch.device("cpu")
    batch_size = 1

    def __init__(self, model: Mosaic) -> None:
        self.model = model
        self.members: list[int] = []

    def step(self, history: Tensor, time_features: Tensor, noise: Tensor) -> Tensor:
        self.members.append(len(history))
        return self.model.step(history, time_features, noise)


def live_states(size: int) -> int:
    """Storages of `size` or more float32 numbers that are alive."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return len({storage.data_ptr() for storage in storages if storage.nbytes() >= 4 * size})


class Shift:
    """An engine whose next state is the newest plus one; member 1 breaks at its second step."""

    device = torch.device("cpu")
    batch_size = 3

    def __init__(self, broken_at: int = 0) -> None:
        self.calls = 0
        self.broken_at = broken_at

    def step(self, history: Tensor, time_features: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002
        self.calls += 1
        state = history[:, -1] + 1
        if self.calls == self.broken_at:
            state[1, 5, 2] = torch.nan
        return state


def test_the_stream_is_step_major_and_starts_with_the_analysis(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    steps = list(forecast(small_model, analyses, numbers=(4, 9, 2), steps=2))
    assert [step.step for step in steps] == [0, 1, 2]
    assert [step.lead_time for step in steps] == [np.timedelta64(h, "h") for h in (0, 6, 12)]
    assert all(step.numbers == (4, 9, 2) and step.channels == CHANNEL_NAMES for step in steps)
    assert all(step.fields.shape == (3, 82, 121, 240) for step in steps)
    assert all(step.fields.dtype == np.float32 for step in steps)
    newest = analyses["temperature"].isel(time=-1).sel(level=500).values
    for member in range(3):
        assert np.array_equal(steps[0].channel("temperature_500")[member], newest)
    assert not np.array_equal(steps[1].fields[0], steps[1].fields[1])
    assert steps[0].init_time == analyses["time"].values[-1]


def test_a_step_is_the_network_on_the_normalised_history(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    *_, last = forecast(small_model, analyses, numbers=(3,), steps=2)
    start = initial_state_from_dataset(analyses, small_model.config)
    statistics = small_model.normalization
    states = list(statistics.normalize(torch.from_numpy(start.fields)))
    clock: Clock = start.clock
    for step in (1, 2):
        noise = torch.from_numpy(ensemble_noise(last.init_time, (3,), step))
        with torch.no_grad():
            history = torch.stack(states[-2:])[None]
            states.append(small_model.step(history, clock.features(), noise)[0])
        clock = clock.after(1)
    expected = statistics.denormalize(states[-1]).T.reshape(82, 240, 121).mT
    np.testing.assert_array_equal(last.fields[0], expected.numpy())


@pytest.mark.parametrize("batch_size", [None, 2, 3])
def test_a_member_alone_has_the_same_bits_as_in_the_ensemble(
    small_model: Mosaic, analyses: xr.Dataset, batch_size: int | None
) -> None:
    """At one batch size; the short batch is filled up, so that shapes never vary."""
    together, alone = (
        list(forecast(small_model, analyses, numbers=n, steps=2, batch_size=batch_size))[-1]
        for n in ((0, 17, 5, 6, 1), (17,))
    )
    assert np.array_equal(together.fields[1], alone.fields[0])


def test_batch_sizes_differ_by_rounding_only(small_model: Mosaic, analyses: xr.Dataset) -> None:
    """Matrix products of other shapes add in another order: float32 rounding, a few 1e-6."""
    single, triple = (
        list(forecast(small_model, analyses, numbers=(0, 1, 2), steps=1, batch_size=size))[-1]
        for size in (1, 3)
    )
    scale = small_model.normalization.std.numpy()[:, None, None]
    assert np.max(np.abs(single.fields - triple.fields) / scale) < 2e-5


def test_batches_are_full_and_memory_does_not_grow(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    engine = Watched(small_model)
    stream = forecast(small_model, analyses, numbers=range(3), steps=4, batch_size=2, engine=engine)
    all_members = 3 * 29_040 * 82
    alive = [live_states(all_members) for _ in stream]
    assert engine.members == [2, 2] * 4
    # Two states of history, the state handed over in SI units, its image.
    assert max(alive) <= 4
    assert len(set(alive[2:])) == 1


def test_the_stream_is_lazy(small_model: Mosaic, analyses: xr.Dataset) -> None:
    engine = Watched(small_model)
    stream = forecast(small_model, analyses, numbers=(0,), steps=1000, engine=engine)
    assert next(stream).step == 0
    assert next(stream).step == 1
    assert len(engine.members) == 1


def test_a_long_rollout_of_random_weights_stays_bounded(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    std = small_model.normalization.std.numpy()[:, None, None]
    mean = small_model.normalization.mean.numpy()[:, None, None]
    for step in forecast(small_model, analyses, numbers=(0,), steps=30):
        spread = float(np.std((step.fields[0] - mean) / std))
        assert step.step == 0 or 0.1 < spread < 1.5


def test_what_is_not_finite_is_named(small_model: Mosaic, analyses: xr.Dataset) -> None:
    stream = forecast(
        small_model, analyses, numbers=(8, 3), steps=3, batch_size=2, engine=Shift(broken_at=2)
    )
    assert [next(stream).step, next(stream).step] == [0, 1]
    with pytest.raises(ModelError) as refused:
        next(stream)
    assert refused.value.where == "forecast step 2"
    assert "1 maps" in refused.value.what
    assert f"member 3 {CHANNEL_NAMES[2]}" in refused.value.what


def test_to_host_may_run_ahead(small_model: Mosaic, analyses: xr.Dataset) -> None:
    def ahead(images: Iterable[Image]) -> Iterator[HostImage]:
        return iter(list(copy_to_host(images)))

    plain, early = (
        [
            step.fields.copy()
            for step in forecast(
                small_model, analyses, numbers=(1,), steps=3, engine=Shift(), to_host=way
            )
        ]
        for way in (None, ahead)
    )
    assert all(np.array_equal(*pair) for pair in zip(plain, early, strict=True))


def test_the_engine_says_how_many_members_it_takes(
    small_model: Mosaic, analyses: xr.Dataset
) -> None:
    engine = Shift()
    list(forecast(small_model, analyses, numbers=range(7), steps=2, engine=engine))
    assert engine.calls == 6


@pytest.mark.parametrize("numbers", [(), (1, 1), (-1, 0)])
def test_bad_numbers_are_refused_at_once(
    small_model: Mosaic, analyses: xr.Dataset, numbers: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="distinct and not negative"):
        forecast(small_model, analyses, numbers=numbers, steps=1)


@pytest.mark.parametrize(("steps", "batch_size"), [(-1, 1), (1, 0)])
def test_bad_counts_are_refused_at_once(
    small_model: Mosaic, analyses: xr.Dataset, steps: int, batch_size: int
) -> None:
    with pytest.raises(InputError, match="out of range"):
        forecast(small_model, analyses, numbers=(0,), steps=steps, batch_size=batch_size)
