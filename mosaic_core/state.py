"""From the initial-state dataset to the arrays the rollout starts from, and their clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.contract.errors import DataError, ModelError
from mosaic_core.contract.schema import INITIAL_STATE, dataset_to_channels
from mosaic_core.contract.variables import CHANNEL_NAMES
from mosaic_core.model.config import ModelConfig

DAYS_PER_YEAR = 365.25
STRIDES_PER_DAY = 4


@dataclass(frozen=True)
class Clock:
    """Fraction of the day and of the year of one state, float32.

    Steps add to both and never wrap them: the published model was trained so.
    """

    day: np.float32
    year: np.float32

    @classmethod
    def at(cls, time: np.datetime64) -> Self:
        """The clock at a UTC time: seconds of the day, days since 1 January."""
        day, year = time.astype("datetime64[D]"), time.astype("datetime64[Y]")
        seconds = (time - day) / np.timedelta64(1, "s")
        first, following = (
            (year + np.timedelta64(years, "Y")).astype("datetime64[D]") for years in (0, 1)
        )
        fraction = (day - first) / (following - first)
        return cls(np.float32(seconds / 86400), np.float32(fraction))

    def after(self, stride: int) -> Clock:
        """The clock `stride` times 6 h later."""
        return Clock(
            self.day + np.float32(stride / STRIDES_PER_DAY),
            self.year + np.float32(stride / DAYS_PER_YEAR),
        )

    def features(self) -> Tensor:
        """sin and cos of the day, sin and cos of the year, float32 (4,)."""
        angles = 2 * math.pi * torch.tensor([self.day, self.year], dtype=torch.float32)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten()


@dataclass(frozen=True)
class InitialState:
    """The history a rollout starts from: `fields` (time, point, channel) float32 in SI units.

    Oldest state first; points longitude-major; channels in the order of the model. `clock` is
    that of the newest state.
    """

    fields: NDArray[np.float32]
    clock: Clock


def initial_state_from_dataset(dataset: xr.Dataset, config: ModelConfig) -> InitialState:
    """The history in an INITIAL_STATE dataset, for a model of `config`.

    DataError lists every departure from the schema, names the times that are missing or wrong
    and the first channels with values that are not finite.
    """
    INITIAL_STATE.validate(dataset, where="initial state")
    _check_times(dataset["time"].values, config)
    channels = dataset_to_channels(dataset)
    _check_finite(channels, dataset["time"].values)
    order = [CHANNEL_NAMES.index(name) for name in _known(config.variables)]
    if order != list(range(channels.shape[1])):
        channels = channels[:, order]
    fields = torch.from_numpy(channels).permute(0, 3, 2, 1)  # time, longitude, latitude, channel
    flat = fields.flatten(1, 2).contiguous().numpy()  # by all cores: it is the start's slowest part
    return InitialState(flat, Clock.at(initial_time(dataset)))


def initial_time(dataset: xr.Dataset) -> np.datetime64:
    """Time of the newest state, datetime64[ns]."""
    newest: np.datetime64 = dataset["time"].values[-1].astype("datetime64[ns]")
    return newest


def _known(variables: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in variables if name not in CHANNEL_NAMES]
    if unknown:
        raise ModelError(
            f"the model wants channels that analyses do not have: {', '.join(unknown)}",
            remedy="use a model of the 82 channels",
        )
    return variables


def _check_times(times: NDArray[np.datetime64], config: ModelConfig) -> None:
    spacing = np.timedelta64(config.step_hours, "h")
    wanted = [times[-1] - spacing * back for back in reversed(range(config.num_history_steps))]
    if list(times) != wanted:
        found, needed = (", ".join(str(t.astype("M8[m]")) for t in ts) for ts in (times, wanted))
        raise DataError(
            f"has the times {found}; the model needs {needed}",
            where="initial state",
            remedy="build it again from an archive that has these analyses",
        )


def _check_finite(channels: NDArray[np.float32], times: NDArray[np.datetime64]) -> None:
    faulty = np.argwhere(~np.isfinite(channels.sum(axis=(2, 3))))
    if len(faulty):
        listed = ", ".join(
            f"{CHANNEL_NAMES[channel]} at {times[time].astype('M8[m]')}"
            for time, channel in faulty[:5]
        )
        raise DataError(
            f"values that are not finite in {len(faulty)} fields: {listed}",
            where="initial state",
            remedy="fetch and archive these analyses again",
        )
