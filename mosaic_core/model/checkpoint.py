"""A bundle, the directory a model is loaded from, and bundles of random weights.

{variant}.safetensors or {variant}_best.pt    the parameters (the former if both are there)
norm_stats_{variant}.npz                      state_mean, state_std
static_vars.npz                               data, latitude, longitude
bundle.json                                   optional: origin, licence, configuration
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import safetensors.torch
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.contract.files import sha256_file, sync_directory, write_json_atomic
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.model.companions import Statics, read_statics, read_statistics, static_faults
from mosaic_core.model.config import ModelConfig, builtin_config, parse_config
from mosaic_core.model.mesh import build_geometry
from mosaic_core.model.mosaic import Mosaic, Provenance
from mosaic_core.model.normalize import normalization
from mosaic_core.model.parameters import PREFIX, install_parameters, read_weights

BUNDLE = "bundle.json"
STATICS = "static_vars.npz"
OUTPUT_STD = 0.5  # of a random network's normalised states: within the weather's own range
SILU_RMS = 0.596  # root mean square of SiLU of a standard normal number


class BundleInfo(pydantic.BaseModel):
    """What `bundle.json` says; `trained` and `licence` are unknown without it.

    `configs` holds a configuration, in the JSON form, for variants that are not built in.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    trained: bool | None = None
    licence: str = "not recorded"
    source: str = "not recorded"
    configs: dict[str, dict[str, Any]] = {}


def load_model(
    directory: Path,
    variant: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    dangerously_unpickle: bool = False,
) -> Mosaic:
    """The model of `variant` in the bundle `directory`, ready on `device`.

    `dtype` is that of parameters and activations. ModelError names the file and every fault;
    see `read_weights` for `dangerously_unpickle`.
    """
    if not directory.is_dir():
        raise ModelError(
            "no such directory of weights",
            where=str(directory),
            remedy="mosaic-ops weights fetch, or give the directory that holds them",
        )
    target = usable_device(device)
    path = weights_path(directory, variant)
    model = assemble(directory, variant, path, dangerously_unpickle=dangerously_unpickle)
    return model.to(device=target, dtype=dtype)


def assemble(
    directory: Path, variant: str, path: Path, *, dangerously_unpickle: bool = False
) -> Mosaic:
    """The model of `variant` from a bundle with the parameters in `path`: float32, on the CPU."""
    info = read_bundle_info(directory)
    config = bundle_config(info, variant, directory)
    statistics = read_statistics(directory / statistics_name(variant), config)
    statics = read_statics(directory / STATICS, config)
    weights = read_weights(path, dangerously_unpickle=dangerously_unpickle)
    geometry = build_geometry(config, statics.longitude, statics.latitude, statics.data)
    model = Mosaic(config, geometry, statistics, _provenance(directory, variant, path, info))
    install_parameters(model, weights, str(path))
    return model.eval()


def usable_device(name: str | torch.device) -> torch.device:
    """The torch device of that name; ModelError if this machine does not have it."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {name} cannot be used: {reason}", remedy="use the device cpu"
        ) from error
    return device


def statistics_name(variant: str) -> str:
    """File name of the statistics of a variant."""
    return f"norm_stats_{variant}.npz"


def weights_path(directory: Path, variant: str) -> Path:
    """The parameters of `variant` in a bundle, safetensors first; ModelError if neither is."""
    candidates = [directory / f"{variant}.safetensors", directory / f"{variant}_best.pt"]
    for path in candidates:
        if path.is_file():
            return path
    raise ModelError(
        f"holds neither {candidates[0].name} nor {candidates[1].name}",
        where=str(directory),
        remedy="mosaic-ops weights fetch, or give the directory that holds them",
    )


def read_bundle_info(directory: Path) -> BundleInfo:
    """`bundle.json` of a bundle, or unknown origin where there is none."""
    path = directory / BUNDLE
    if not path.exists():
        return BundleInfo()
    try:
        return BundleInfo.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise ModelError(f"not a valid {BUNDLE}: {error}", where=str(path)) from None


def bundle_config(info: BundleInfo, variant: str, directory: Path) -> ModelConfig:
    """The bundle's own configuration of `variant`, else the one built in."""
    if variant in info.configs:
        return parse_config(info.configs[variant], str(directory / BUNDLE))
    return builtin_config(variant)


def _provenance(directory: Path, variant: str, weights: Path, info: BundleInfo) -> Provenance:
    names = (weights.name, statistics_name(variant), STATICS)
    return Provenance(
        variant=variant,
        sha256={name: sha256_file(directory / name) for name in names},
        trained=info.trained,
        licence=info.licence,
        source=info.source,
    )


def write_safetensors(path: Path, weights: dict[str, Tensor], origin: str) -> None:
    """Write tensors under their checkpoint names (with `model.`), whole or not at all.

    `origin` becomes the file's only metadata: the format writes several in random order, and
    the same content should have the same digest.
    """
    tensors = {PREFIX + name: tensor.contiguous() for name, tensor in weights.items()}
    aside = path.with_name(f".{path.name}.tmp")
    safetensors.torch.save_file(tensors, aside, metadata={"origin": origin})
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def write_random_bundle(
    directory: Path,
    config: ModelConfig,
    seed: int,
    state_mean: ArrayLike,
    state_std: ArrayLike,
    static: ArrayLike,
    *,
    variant: str = "mini",
) -> None:
    """Write a bundle whose weights are random, for a demonstration: its maps are not weather.

    `state_mean` and `state_std` (channel,) in SI units, `static` (longitude, latitude, static)
    on the 1.5 degree grid. The same seed gives the same bytes. `bundle.json` says that nothing
    was trained.
    """
    means, stds = np.asarray(state_mean, np.float64), np.asarray(state_std, np.float64)
    normalization(means, stds, config.variables, "statistics of the random bundle")
    statics = Statics(np.asarray(static, np.float32), LATITUDE, LONGITUDE)
    if faults := static_faults(statics, config):
        raise InputError("; ".join(faults), where="statics of the random bundle")
    directory.mkdir(parents=True, exist_ok=True)
    info = BundleInfo(
        trained=False,
        licence="Apache-2.0",
        source=f"random weights, seed {seed}",
        configs={variant: config.model_dump(mode="json")},
    )
    write_json_atomic(directory / BUNDLE, info.model_dump(mode="json"))
    write_arrays(directory / statistics_name(variant), state_mean=means, state_std=stds)
    write_arrays(directory / STATICS, data=statics.data, latitude=LATITUDE, longitude=LONGITUDE)
    weights = random_weights(config, seed)
    write_safetensors(directory / f"{variant}.safetensors", weights, info.source)


def random_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Normal parameters of variance 1 / inputs; the last map scaled to `OUTPUT_STD`.

    The norms bound every layer, so that a rollout of any length keeps this amplitude.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in Mosaic(config).named_parameters()}
    weights = {
        name: torch.from_numpy(generator.standard_normal(shape, np.float32) / math.sqrt(shape[1]))
        for name, shape in shapes.items()
    }
    weights["postprocess.3.weight"] *= OUTPUT_STD / SILU_RMS
    return weights


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an npz file, whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)
