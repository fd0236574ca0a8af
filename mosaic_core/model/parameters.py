"""From a weights file to verified parameters: strict about tensors, safe about pickles."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mosaic_core.contract.errors import ModelError
from mosaic_core.model.mesh import Geometry
from mosaic_core.model.mosaic import Mosaic

logger = logging.getLogger(__name__)

PREFIX = "model."
OPT_IN = "dangerously_unpickle=True (--dangerously-unpickle)"
ROPE_BUFFER = re.compile(r"(.+)\.blocks\.\d+\.attention\.\w+\.(cos|sin)_freqs")
NAMES_SHOWN = 20
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported (?:global|class|type)|function):? ([\w.]+)")


def read_weights(path: Path, *, dangerously_unpickle: bool = False) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or torch file by name, without the prefix `model.`, on the CPU.

    A torch file holds `model_state_dict`, or is that mapping itself. ModelError if the file is
    missing, damaged, no such mapping, or needs code to run while it is read; that is allowed
    only by `dangerously_unpickle`, which gives the file's author the run of this machine.
    """
    if not path.is_file():
        raise ModelError("no such weights file", where=str(path), remedy="check the directory")
    if path.suffix == ".safetensors":
        content: object = _read_safetensors(path)
    else:
        content = _read_torch(path, dangerously_unpickle)
    if isinstance(content, Mapping) and "model_state_dict" in content:
        content = content["model_state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            "holds no model_state_dict and is not a mapping of tensors", where=str(path)
        )
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise ModelError(f"entries that are not tensors: {_listed(foreign)}", where=str(path))
    return {str(name).removeprefix(PREFIX): value for name, value in content.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path, dangerously_unpickle: bool) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=not dangerously_unpickle)
    except pickle.UnpicklingError as error:
        if dangerously_unpickle or not (types := _unsafe_types(path, str(error))):
            raise _damaged(path, error) from error
        raise ModelError(
            f"reading it would run code: it needs {_listed(types)}",
            where=str(path),
            remedy=f"get weights of plain tensors; only if you trust their author, {OPT_IN}",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error


def _unsafe_types(path: Path, message: str) -> list[str]:
    if zipfile.is_zipfile(path):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return _REFUSED.findall(message)[:1]


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"not a readable weights file: {reason}",
        where=str(path),
        remedy="fetch it again; compare its digest with the published one",
    )


def install_parameters(model: Mosaic, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy `weights` into `model`, of the type and on the device of its parameters.

    One ModelError lists every tensor that is missing, unknown, misshapen, no floating point
    number or not finite. Tables that the file holds are compared with the computed ones: a
    difference is logged as a warning, the computed one stays.
    """
    parameters = dict(model.named_parameters())
    tables = dict(_tables(model, weights))
    faults = list(_faults(parameters, weights, set(tables)))
    if faults:
        raise ModelError(
            f"{len(faults)} tensors do not fit the configuration:\n  - " + "\n  - ".join(faults),
            where=where,
            remedy="use the weights and the configuration that belong together",
        )
    for name, computed in tables.items():
        _compare_table(name, weights[name], computed, where)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _faults(
    parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor], tables: set[str]
) -> Iterator[str]:
    for name in sorted(parameters.keys() - weights.keys()):
        yield f"{name}: missing, expected {tuple(parameters[name].shape)}"
    for name in sorted(weights.keys() - parameters.keys() - tables):
        yield f"{name}: unknown, {tuple(weights[name].shape)}"
    for name in sorted(parameters.keys() & weights.keys()):
        found, expected = weights[name], parameters[name]
        if found.shape != expected.shape:
            yield f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
        elif not found.is_floating_point():
            yield f"{name}: type {found.dtype}, expected floating point"
        elif not bool(found.isfinite().all()):
            yield f"{name}: has values that are not finite"


def _tables(model: Mosaic, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names in `weights` that are tables of the geometry, with the computed table."""
    computed = published_tables(model.geometry)
    rotations = _rotations(model)
    for name in weights:
        rope = ROPE_BUFFER.fullmatch(name)
        if name in computed:
            yield name, computed[name]
        elif rope and (rotation := rotations.get(rope[1])) is not None:
            yield name, rotation[rope[2]]


def published_tables(geometry: Geometry) -> dict[str, Tensor]:
    """The tables of the geometry, less the rotary ones, under their names in checkpoints."""
    positions = geometry.child_positions
    return {
        "static_vars": geometry.statics,
        "interp_to_hp.neighbors": geometry.to_healpix.indices,
        "interp_to_hp.rel_pos": geometry.to_healpix.directions,
        "interp_to_ll.neighbors": geometry.to_grid.indices,
        "interp_to_ll.rel_pos": geometry.to_grid.directions,
        **{f"downsample_layers.{i}.rel_pos": x for i, x in enumerate(positions)},
        **{f"upsample_layers.{i}.rel_pos": x for i, x in enumerate(reversed(positions))},
    }


def _rotations(model: Mosaic) -> dict[str, dict[str, Tensor]]:
    *rotations, coarsest = model.geometry.rotations
    named = {"bottleneck": coarsest}
    named |= {f"encoder_stages.{i}": x for i, x in enumerate(rotations)}
    named |= {f"decoder_stages.{i}": x for i, x in enumerate(reversed(rotations))}
    return {name: {"cos": x.cos, "sin": x.sin} for name, x in named.items() if x is not None}


def _compare_table(name: str, found: Tensor, computed: Tensor, where: str) -> None:
    table = computed.cpu()
    if found.numel() != table.numel():
        difference = f"shape {tuple(found.shape)}, computed {tuple(table.shape)}"
    else:
        gap = (found.reshape(table.shape).double() - table.double()).abs()
        count = int((gap > 0).sum())
        if count == 0:
            return
        difference = f"{count} of {gap.numel()} values differ, by up to {float(gap.max()):.3g}"
    logger.warning("%s: table %s: %s; the computed one is used", where, name, difference)


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
