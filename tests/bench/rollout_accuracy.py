"""Error of one step at full size: the fast engine and the published recipe against float32.

    python tests/bench/rollout_accuracy.py era5

The selection of the float32 reference is forced on both. The published recipe is emulated: float16
autocast, the selected branch in bfloat16. Random weights, smooth state; needs a CUDA GPU. Prints
the relative RMS errors and writes tests/bench/results/rollout_accuracy_VARIANT.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from flows.provenance import code_version
from mosaic_core.attention import library, reference
from mosaic_core.attention.kernels import attention
from mosaic_core.benchmark import device_name, smooth_state, versions
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.model import transformer
from mosaic_core.model.checkpoint import random_weights
from mosaic_core.model.config import builtin_config
from mosaic_core.model.fast import FastEngine
from mosaic_core.model.mesh import build_geometry
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.state import initial_state_from_dataset

RESULTS = Path(__file__).parent / "results"


def published_attention(
    listed: Iterator[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate_logits: Tensor,
    *,
    local_block: int,
    sparse_block: int,
    selected_blocks: int,
) -> Tensor:
    """The published arithmetic of one member with the next of the `listed` selections."""
    q, k, v = q.half(), k.half(), v.half()
    runs = [x.unflatten(1, (-1, local_block)).flatten(0, 1) for x in (q, k, v)]
    local = library.sdpa(*runs).unflatten(0, (1, -1)).flatten(1, 2)
    means = [reference.block_means(x.float(), sparse_block).half() for x in (q, k, v)]
    compressed = library.sdpa(*means).repeat_interleave(sparse_block, dim=1)
    selected = _selected_bfloat16(q[0], k[0], v[0], next(listed)[0], sparse_block)
    gates = gate_logits.float().softmax(dim=-1).half()
    return gates[..., 0:1] * local + gates[..., 1:2] * compressed + gates[..., 2:3] * selected


def _selected_bfloat16(q: Tensor, k: Tensor, v: Tensor, lists: Tensor, block: int) -> Tensor:
    """(token, head, size) each, lists (kv_head, block, listed) -> (1, token, head, size)."""
    kv_heads, group = k.shape[1], q.shape[1] // k.shape[1]
    keys, values = (
        x.bfloat16().unflatten(0, (-1, block)).permute(2, 0, 1, 3) for x in (k, v)
    )  # (kv_head, block, token, size)
    queries = q.bfloat16().unflatten(0, (-1, block)).unflatten(2, (kv_heads, group))
    out = torch.empty_like(queries)
    for head in range(kv_heads):
        some_keys, some_values = (
            x[head][lists[head]].flatten(1, 2)[:, None].expand(-1, group, -1, -1)
            for x in (keys, values)
        )
        mine = queries[:, :, head].transpose(1, 2)
        out[:, :, head] = scaled_dot_product_attention(mine, some_keys, some_values).transpose(1, 2)
    return out.flatten(2, 3).flatten(0, 1)[None].half()


@contextmanager
def replaced(module: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    """`module.name` is `value` inside the block."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def relative(result: Tensor, expected: Tensor) -> float:
    """||result - expected|| / ||expected||."""
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def random_model(variant: str, device: torch.device) -> Mosaic:
    """The built-in network with random weights on made-up statics."""
    config = builtin_config(variant)
    static = np.random.default_rng(0).standard_normal((LONGITUDE.size, LATITUDE.size, 3))
    geometry = build_geometry(config, LONGITUDE, LATITUDE, static.astype(np.float32))
    model = Mosaic(config, geometry)
    model.load_state_dict(random_weights(config, 0))
    return model.to(device).eval()


def reference_step(model: Mosaic, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    """One float32 step and the selection of every attention layer, in order."""
    chosen: list[Tensor] = []
    select = reference.select_blocks

    def record(*arguments: Any) -> Tensor:
        chosen.append(select(*arguments))
        return chosen[-1]

    exact = partial(transformer.block_sparse_attention, impl="reference")
    with (
        replaced(reference, "select_blocks", record),
        replaced(transformer, "block_sparse_attention", exact),
    ):
        return model.step(*inputs), chosen


def engine_steps(
    model: Mosaic, inputs: tuple[Tensor, ...], chosen: list[Tensor]
) -> tuple[Tensor, Tensor, list[float]]:
    """The engine free-running and forced, and the share of listed blocks it would have chosen."""
    engine = FastEngine(model, model.device, batch_size=1)
    free = engine.step(*inputs).clone()
    listed, agreed = iter(chosen), []
    select = attention.select_blocks

    def force(*arguments: Any, out: Tensor, **options: Any) -> Tensor:
        select(*arguments, out=out, **options)
        wanted = next(listed)
        agreed.append(float((wanted[..., None] == out.long()[..., None, :]).any(-1).float().mean()))
        return out.copy_(wanted)

    with replaced(attention, "select_blocks", force):
        return free, engine.compute(), agreed


@torch.no_grad()
def measure(variant: str) -> dict[str, Any]:
    """All errors of one member's first step."""
    device = torch.device("cuda")
    model = random_model(variant, device)
    config = model.config
    state = initial_state_from_dataset(smooth_state(config), config)
    generator = torch.Generator(device).manual_seed(0)
    noise = torch.randn(1, config.noise_dim, device=device, generator=generator)
    history = torch.from_numpy(state.fields).to(device)[None]
    inputs = (history, state.clock.features().to(device), noise)
    exact, chosen = reference_step(model, inputs)
    free, forced, agreed = engine_steps(model, inputs, chosen)
    recipe = partial(published_attention, iter(chosen))
    with (
        replaced(transformer, "block_sparse_attention", recipe),
        torch.autocast(device.type, torch.float16),
    ):
        published = model.step(*inputs).float()
    return {
        "variant": variant,
        "engine_forced": relative(forced, exact),
        "published_forced": relative(published, exact),
        "engine_free": relative(free, exact),
        "listed_blocks_equal": [round(share, 4) for share in agreed],
        "device": device_name(device),
        "versions": versions(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=["era5", "hres"])
    parser.add_argument("--commit", default="", help="of the code; by default asked of git")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    report = measure(chosen.variant) | {"commit": chosen.commit or code_version()}
    for name in ("engine_forced", "published_forced", "engine_free", "listed_blocks_equal"):
        print(f"{name:20} {report[name]}")
    path = chosen.results / f"rollout_accuracy_{report['variant']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
