"""The ensemble stage of a very small model, as a program that can kill itself at any lead.

    python ensemble_job.py FOLDER LEAD [LOST]

No figures are drawn. It ends itself with SIGKILL after it took lead number LEAD (-1: never), and
its GPU fails, as far as anybody can tell, when it is asked for lead LOST.
Every step that the model computes is a line in FOLDER/computed.txt.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flows import ensemble
from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNEL_NAMES, STATIC_VARIABLES
from mosaic_core.model.checkpoint import write_random_bundle
from mosaic_core.model.config import BottleneckConfig, ModelConfig, StageConfig
from mosaic_core.model.mosaic import Mosaic
from postprocess.product_store import write_product

CYCLE = Cycle.parse("2026-11-23T00Z")
MEMBERS, STEPS, EVERY = 2, 5, 2
HEADS = {"num_heads": 4, "block_attn_size": 48, "sparse_block_size": 12}
CONFIG = ModelConfig(
    dim=16,
    num_heads=4,
    k_neighbors=3,
    variables=CHANNEL_NAMES,
    static_variables=STATIC_VARIABLES,
    num_history_steps=4,
    step_stride=1,
    stages=(
        StageConfig(
            nside=4, dim=16, sparse_block_count=2, encoder_depth=1, decoder_depth=1, **HEADS
        ),
    ),
    bottleneck=BottleneckConfig(nside=2, dim=32, sparse_block_count=2, depth=1, **HEADS),
)


def settings(folder: Path) -> Settings:
    return Settings(
        data_root=folder / "data",
        variant="mini",
        members=MEMBERS,
        lead_hours=6 * STEPS,
        device="cpu",
        restart_steps=EVERY,
    )


def make_inputs(folder: Path) -> None:
    """Weights, and an initial state of smooth waves."""
    times = np.array([each.init_time for each in CYCLE.history(4, 6)])
    phase = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    shift = 0.3 * np.arange(82)[:, None, None] + 0.1 * np.arange(4)[:, None, None, None]
    height = np.cos(np.deg2rad(np.linspace(-90, 90, 121)))[:, None]
    fields = (280 + 20 * height * (1 + 0.1 * np.sin(3 * phase + shift))).astype(np.float32)
    static = np.random.default_rng(3).random((240, 121, 3), np.float32)
    mean, deviation = fields.mean(axis=(0, 2, 3)), fields.std(axis=(0, 2, 3))
    write_random_bundle(settings(folder).weights, CONFIG, 7, mean, deviation, static)
    said = [json.dumps({"sha256": f"{place:064d}"}) for place in range(len(times))]
    state = channels_to_dataset(fields, {"time": times}).assign_coords(
        provenance=("time", np.array(said)), origin=("time", np.array(["analysis"] * len(times)))
    )
    write_product(folder / "state.zarr", state, {})


def run(folder: Path, killed_after: int = -1, lost_at: int = -1) -> Path:
    """The folder of finished stores."""
    torch.set_num_threads(1)
    ensemble.draw_figures = lambda *_: None  # type: ignore[assignment]
    count_steps(folder / "computed.txt", lost_at)

    def advance(done: int, total: int, note: str) -> None:
        if done == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    return ensemble.run_ensemble(
        CYCLE, folder / "state.zarr", settings(folder), advance, nullcontext
    )


def count_steps(log: Path, lost_at: int) -> None:
    """Let the network write a line for each member that it brings one step ahead."""
    compute = Mosaic.step
    calls = itertools.count(1)

    def counted(model: Mosaic, history: Tensor, features: Tensor, noise: Tensor) -> Tensor:
        if next(calls) == (lost_at - 1) * MEMBERS + 1:
            raise RuntimeError("CUDA error: unspecified launch failure\nmore for experts")
        with log.open("a") as file:
            file.write("step\n")
        return compute(model, history, features, noise)

    Mosaic.step = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    run(Path(sys.argv[1]), *map(int, sys.argv[2:]))
