"""Is this machine fit to run the model? Asked before a worker takes runs, and after any change.

The golden is recorded beside the weights at the first canary and enforced from then on: digests
of the files that the variant's model is loaded from, and samples of a two-step rollout from a state
that only depends on the statistics. New weights are accepted by recording again, on purpose.
"""

from __future__ import annotations

import datetime as dt
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.provenance import installed_version
from flows.settings import Settings
from flows.watch.alerts import Alert, sender, update_alerts
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ModelError, MosaicOpsError
from mosaic_core.contract.files import write_json_atomic
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNELS

CANARY = "canary"
STEPS = 2
NUMBERS = (0, 1)
SAMPLES = 61  # points of the grid, spread evenly; prime, so that no meridian is favoured
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 8e-2}
"""Largest difference allowed, in standard deviations of the channel, by the lower precision."""

MINIMUM_FREE_GPU_BYTES = 6e9  # weights, one batch of members, the work space
WAVE = 0.3  # amplitude of the state's wave in standard deviations


class Golden(BaseModel):
    """What this bundle gave when it was accepted; `samples` (number x channel x point, flat)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    precision: str
    sha256: dict[str, str]
    samples: tuple[float, ...]
    made_on: str


@dataclass(frozen=True)
class Verdict:
    """`faults` is empty on a machine that is fit; `facts` describe it."""

    facts: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def is_fit(self) -> bool:
        """Whether a worker may take runs here."""
        return not self.faults

    @property
    def lines(self) -> list[str]:
        """Facts, then faults."""
        return [*self.facts, *(f"FAULT {fault}" for fault in self.faults)]

    @property
    def summary(self) -> str:
        """One line."""
        return "fit" if self.is_fit else f"not fit: {'; '.join(self.faults)}"


def examine(settings: Settings, *, record: bool = False) -> Verdict:
    """Look at the bundle, the device and a short rollout; never raises for an unfit machine.

    `record` accepts what is found as the golden; so does the first canary of a bundle.
    """
    facts: list[str] = [versions()]
    faults: list[str] = []
    try:
        device, precision = _placement(settings)
        facts.append(f"device {device}, {precision}")
        if device.startswith("cuda"):
            seen, short = device_facts(int(device.partition(":")[2] or 0))
            facts, faults = [*facts, *seen], [*faults, *short]
        if not faults:
            found = _observed(settings)
            facts.append(_compare_or_record(found, settings, record, faults))
    except (MosaicOpsError, OSError, RuntimeError) as error:  # a CUDA fault is a RuntimeError
        faults.append(" ".join(str(error).split()))
    return Verdict(tuple(facts), tuple(faults))


def tell(verdict: Verdict, settings: Settings, now: dt.datetime) -> None:
    """Raise the alert of this machine while it is not fit, and end it once it is."""
    host = socket.gethostname()
    unfit = Alert(
        kind=CANARY,
        subject=host,
        stage="rollout",
        cause=verdict.summary,
        command=f"{settings.gpu_command} canary",
    )
    current = [] if verdict.is_fit else [unfit]
    update_alerts(current, settings.alerts, now, sender(settings), [CANARY], host)


def _placement(settings: Settings) -> tuple[str, str]:
    """Device and precision by their names."""
    from mosaic_core.model.placement import placement

    device, precision = placement(settings.device)
    return str(device), str(precision).removeprefix("torch.")


def refuse_unaccepted(sha256: Mapping[str, str], settings: Settings) -> None:
    """ModelError when files of the bundle are others than those that the canary accepted.

    `sha256` are the digests of the loaded files by name. Before the first canary anything goes.
    """
    path = golden_path(settings)
    changed = _changed(_read(path).sha256, sha256) if path.exists() else []
    if changed:
        raise ModelError(
            f"the weights changed since the canary accepted them ({', '.join(changed)})",
            where=str(settings.weights),
            remedy="bring the old files back, or accept the new ones: mosaic-ops canary --record",
        )


def _changed(accepted: Mapping[str, str], loaded: Mapping[str, str]) -> list[str]:
    """The loaded files that are not as accepted; others of the bundle are not the model's."""
    return sorted(name for name, digest in loaded.items() if accepted.get(name) != digest)


def golden_path(settings: Settings) -> Path:
    """The golden lies beside the weights it is of."""
    return settings.weights / f"canary_{settings.variant}.json"


def _compare_or_record(found: Golden, settings: Settings, record: bool, faults: list[str]) -> str:
    path = golden_path(settings)
    if record or not path.exists():
        write_json_atomic(path, found.model_dump(mode="json"))
        return f"golden recorded in {path}"
    faults += differences(_read(path), found, statistics(settings)[1])
    return f"compared with the golden of {path}"


def _read(path: Path) -> Golden:
    try:
        return Golden.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ModelError(
            "the canary's golden is damaged",
            where=str(path),
            remedy="check the weights, then mosaic-ops canary --record",
        ) from None


def differences(golden: Golden, found: Golden, deviations: NDArray[np.float64]) -> list[str]:
    """How `found` departs from the golden; `deviations` (channel,) are the scales."""
    if changed := _changed(golden.sha256, found.sha256):
        return [
            f"the weights changed since they were accepted ({', '.join(changed)}); "
            "mosaic-ops canary --record accepts them"
        ]
    shape = (len(NUMBERS), len(CHANNELS), SAMPLES)
    apart = np.subtract(found.samples, golden.samples).reshape(shape)
    scaled = np.abs(apart).max(axis=(0, 2)) / deviations
    allowed = max(TOLERANCE[golden.precision], TOLERANCE[found.precision])
    worst = int(np.argmax(np.nan_to_num(scaled, nan=np.inf)))
    if scaled[worst] <= allowed:
        return []
    return [
        f"the rollout departs from its golden by {scaled[worst]:.2g} standard deviations in "
        f"{CHANNELS[worst].name}, {allowed:g} are allowed"
    ]


def _observed(settings: Settings) -> Golden:
    from mosaic_core.forecaster import Forecaster

    forecaster = Forecaster.load(
        settings.weights,
        settings.variant,
        device=settings.device,
        batch_size=settings.batch_size,
        members=len(NUMBERS),
    )
    state = wave_state(settings, *statistics(settings))
    *_, last = forecaster.forecast(state, numbers=NUMBERS, steps=STEPS)
    # By meridians: the order of the goldens that were recorded.
    flat = last.fields.swapaxes(2, 3).reshape(len(NUMBERS), len(CHANNELS), -1)
    points = np.linspace(0, flat.shape[2] - 1, SAMPLES).astype(int)
    return Golden(
        variant=settings.variant,
        precision=forecaster.precision,
        sha256=dict(forecaster.provenance.sha256),
        samples=tuple(np.round(flat[:, :, points].astype(np.float64).ravel(), 6).tolist()),
        made_on=versions(),
    )


def statistics(settings: Settings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the bundle's channels, each (channel,)."""
    from mosaic_core.model.companions import read_arrays

    path = settings.weights / f"norm_stats_{settings.variant}.npz"
    arrays = read_arrays(path, ("state_mean", "state_std"))
    return arrays["state_mean"].astype(np.float64), arrays["state_std"].astype(np.float64)


def wave_state(
    settings: Settings, mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> xr.Dataset:
    """A history that depends on the statistics only: the mean and a slowly moving wave."""
    variant = settings.model_variant
    newest = Cycle.parse("2026-01-01T00Z")
    history = newest.history(variant.history_count, variant.history_spacing_hours)
    latitude, longitude = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None, :]
    waves = np.stack(
        [np.cos(latitude) * np.cos(3 * longitude - 0.1 * place) for place in range(len(history))]
    )
    fields = mean[:, None, None] + WAVE * deviation[:, None, None] * waves[:, None]
    low = np.array([-np.inf if c.minimum is None else c.minimum for c in CHANNELS])
    held = np.maximum(fields, low[:, None, None]).astype(np.float32)
    return channels_to_dataset(held, {"time": np.array([cycle.init_time for cycle in history])})


def versions() -> str:
    """Host, Python and the packages that decide the numbers."""
    names = ("mosaic-ops", "torch", "triton", "numpy", "zarr", "prefect")
    packages = ", ".join(f"{name} {installed_version(name)}" for name in names)
    return f"{platform.node()}: Python {platform.python_version()}, {packages}"


def device_facts(index: int) -> tuple[list[str], list[str]]:
    """Facts and faults of a GPU, from the driver: its name, version and free memory."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return ["the driver was not asked: pip install nvidia-ml-py"], []
    nvml.nvmlInit()
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name, driver = nvml.nvmlDeviceGetName(handle), nvml.nvmlSystemGetDriverVersion()
    finally:
        nvml.nvmlShutdown()
    free = f"{memory.free / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    faults = [] if memory.free >= MINIMUM_FREE_GPU_BYTES else [f"GPU {index}: only {free}"]
    return [f"GPU {index} {name}, driver {driver}, {free}"], faults
