"""`mosaic-ops canary` on a GPU: recorded, compared, and refused when the weights change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS, STATIC_VARIABLES
from mosaic_core.model.checkpoint import write_random_bundle
from mosaic_core.model.config import builtin_config

pytestmark = pytest.mark.gpu

VARIANT = "hres"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size model with random weights and plausible statistics."""
    root = tmp_path_factory.mktemp("canary")
    rng = np.random.default_rng(1)
    mean = np.array([(c.minimum + c.maximum) / 2 for c in CHANNELS], np.float32)
    deviation = np.array([(c.maximum - c.minimum) / 20 for c in CHANNELS], np.float32)
    static = rng.normal(size=(LONGITUDE.size, LATITUDE.size, len(STATIC_VARIABLES)))
    config = builtin_config(VARIANT)
    statics = static.astype(np.float32)
    write_random_bundle(root / "weights", config, 1, mean, deviation, statics, variant=VARIANT)
    return root


def canary(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "MOSAIC_OPS_DATA_ROOT": str(root),
        "MOSAIC_OPS_VARIANT": VARIANT,
        "MOSAIC_OPS_DEVICE": "cuda",
    }
    code = "from flows.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "canary", *options],
        env={**os.environ, **settings}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_first_canary_records_and_the_next_agree(data_root: Path) -> None:
    first = canary(data_root)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "golden recorded" in first.stdout
    assert "device cuda" in first.stdout
    again = canary(data_root)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "compared with the golden" in again.stdout


def test_weights_that_changed_are_refused_until_they_are_accepted(data_root: Path) -> None:
    canary(data_root)
    weights = next((data_root / "weights").glob("*.safetensors"))
    with weights.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x00\x00\x80\x3f")
    refused = canary(data_root)
    assert refused.returncode == 6, refused.stdout + refused.stderr
    assert "the weights changed since they were accepted" in refused.stdout
    assert canary(data_root, "--record").returncode == 0
