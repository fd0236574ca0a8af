"""Compare the model with a golden case: NAME.json (sizes), NAME.pt (weights), NAME.npz (arrays).

Errors are relative to the reference's norm after removing the mean of every channel: `rms` is
||ours - reference|| / ||reference - mean||, `max` the largest difference over the root mean
square of (reference - mean).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mosaic_core.contract.errors import ModelError
from mosaic_core.model.checkpoint import usable_device
from mosaic_core.model.companions import read_arrays
from mosaic_core.model.config import ModelConfig, read_config
from mosaic_core.model.mesh import build_geometry
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.normalize import normalization
from mosaic_core.model.parameters import install_parameters, read_weights
from mosaic_core.rollout import Engine, predict
from mosaic_core.state import Clock

DTYPES = {"float32": torch.float32, "float16": torch.float16}
INPUTS = (
    "initial_state",
    "static",
    "longitude",
    "latitude",
    "state_mean",
    "state_std",
    "day_year",
    "noise",
)
TAP = "tap/"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Deviation:
    """Relative difference of an array from its reference: root mean square and largest."""

    rms: float
    max: float


@dataclass(frozen=True)
class ParityReport:
    """What `mosaic-ops model parity` prints; `rms_per_step` in the order of the steps.

    `runner` is what computed the trajectory: Mosaic, the network itself, or FastEngine.
    """

    case: str
    device: str
    dtype: str
    runner: str
    trajectory: Deviation
    rms_per_step: list[float]
    taps: dict[str, Deviation]

    def as_json(self) -> dict[str, Any]:
        """The report as the JSON object that is printed."""
        return {
            "case": self.case,
            "device": self.device,
            "dtype": self.dtype,
            "runner": self.runner,
            "trajectory": asdict(self.trajectory) | {"rms_per_step": self.rms_per_step},
            "taps": {name: asdict(deviation) for name, deviation in self.taps.items()},
        }


def run_parity(
    case: Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    engine: Callable[[Mosaic, int], Engine] | None = None,
) -> ParityReport:
    """Run the golden case `case` (DIR/NAME, no suffix) and compare all that it holds.

    `engine` makes, for a number of members, the engine whose trajectory is compared (default: the
    network itself); taps are always those of the module of that name in the network itself, at
    the first step. ModelError names a missing file, array or module, an array that does not fit
    the sizes, or an unusable device.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}", remedy=f"choose one of {', '.join(DTYPES)}")
    config = read_config(_file(case, ".json"))
    arrays = read_case_arrays(_file(case, ".npz"), config)
    model = _case_model(case, config, arrays).to(usable_device(device), DTYPES[dtype])
    taps = _compare_taps(model, arrays, str(case))
    reference = torch.from_numpy(arrays["trajectory"]).flatten(2, 3).transpose(0, 1)
    runner = engine(model, reference.shape[1]) if engine else model
    states = _trajectory(model, arrays, len(reference), runner)
    ours = torch.stack([state.cpu() for state in states])
    return ParityReport(
        case=case.name,
        device=device,
        dtype=dtype,
        runner=type(runner).__name__,
        trajectory=deviation(ours, reference),
        rms_per_step=[deviation(*pair).rms for pair in zip(ours, reference, strict=True)],
        taps=taps,
    )


def fast_engine(
    device: str, dtype: str, *, eight_bit: bool = False
) -> Callable[[Mosaic, int], Engine]:
    """An `engine` for `run_parity` that computes all members at once on `device` in `dtype`."""
    from mosaic_core.model.fast import FastEngine

    def make(model: Mosaic, members: int) -> Engine:
        return FastEngine(
            model, device, batch_size=members, dtype=DTYPES[dtype], eight_bit=eight_bit
        )

    return make


def deviation(ours: Tensor, reference: Tensor) -> Deviation:
    """Relative difference of two arrays (..., channel), in float64 (see the module's text)."""
    wide, wanted = ours.double().flatten(0, -2), reference.double().flatten(0, -2)
    difference = wide - wanted
    scale = float((wanted - wanted.mean(dim=0)).square().mean().sqrt()) or 1.0
    rms = float(difference.square().mean().sqrt())
    return Deviation(rms / scale, float(difference.abs().max()) / scale)


def _file(case: Path, suffix: str) -> Path:
    path = case.with_name(case.name + suffix)
    if not path.is_file():
        raise ModelError(
            "no such file", where=str(path), remedy="give DIR/NAME of NAME.json, NAME.npz, NAME.pt"
        )
    return path


def read_case_arrays(path: Path, config: ModelConfig) -> Arrays:
    """Arrays and taps of a case; one ModelError lists each whose shape contradicts `config`."""
    arrays = read_arrays(path, (*INPUTS, "trajectory"), prefix=TAP)
    faults = list(_shape_faults(arrays, config))
    if faults:
        raise ModelError("; ".join(faults), where=str(path))
    inputs = {name: arrays[name].astype(np.float32, copy=False) for name in INPUTS}
    return arrays | inputs


def _shape_faults(arrays: Arrays, config: ModelConfig) -> Iterator[str]:
    channels = len(config.variables)
    grid = (arrays["longitude"].size, arrays["latitude"].size)
    members, steps = (*arrays["trajectory"].shape, 0, 0)[:2]
    expected = {
        "initial_state": (config.num_history_steps, *grid, channels),
        "static": (*grid, len(config.static_variables)),
        "day_year": (2,),
        "noise": (steps, members, config.noise_dim),
        "trajectory": (members, steps, *grid, channels),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            yield f"{name} has shape {arrays[name].shape}, expected {shape}"


def _case_model(case: Path, config: ModelConfig, arrays: Arrays) -> Mosaic:
    where = str(case)
    statistics = normalization(arrays["state_mean"], arrays["state_std"], config.variables, where)
    geometry = build_geometry(config, arrays["longitude"], arrays["latitude"], arrays["static"])
    model = Mosaic(config, geometry, statistics)
    weights = _file(case, ".pt")
    install_parameters(model, read_weights(weights), str(weights))
    return model.eval()


def _trajectory(model: Mosaic, arrays: Arrays, steps: int, engine: Engine) -> Iterator[Tensor]:
    noise = torch.from_numpy(arrays["noise"])
    return predict(
        model,
        torch.from_numpy(arrays["initial_state"]).flatten(1, 2),
        Clock(*arrays["day_year"]),
        lambda step: noise[step - 1],
        steps,
        batch_size=noise.shape[1],
        engine=engine,
    )


def _compare_taps(model: Mosaic, arrays: Arrays, where: str) -> dict[str, Deviation]:
    wanted = {name.removeprefix(TAP): values for name, values in arrays.items() if TAP in name}
    modules = dict(model.named_modules())
    unknown = sorted(wanted.keys() - modules.keys())
    if unknown:
        raise ModelError(f"taps of modules that do not exist: {', '.join(unknown)}", where=where)
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in wanted:
            handle = modules[name].register_forward_hook(partial(_keep, outputs, name))
            hooks.callback(handle.remove)
        if wanted:
            next(_trajectory(model, arrays, 1, model))
    return {name: _tap_deviation(name, outputs[name], wanted[name]) for name in wanted}


def _keep(
    outputs: dict[str, Tensor], name: str, _module: nn.Module, _inputs: object, output: Tensor
) -> None:
    outputs.setdefault(name, output.cpu())


def _tap_deviation(name: str, output: Tensor, reference: NDArray[Any]) -> Deviation:
    """`output` is (member, token, dim) or (member, dim), the reference (token, member, dim)."""
    ours = output.transpose(0, 1) if output.ndim == 3 else output[None]
    if ours.shape != reference.shape:
        raise ModelError(
            f"tap {name} has shape {reference.shape}, the model gives {tuple(ours.shape)}"
        )
    return deviation(ours, torch.from_numpy(reference))
