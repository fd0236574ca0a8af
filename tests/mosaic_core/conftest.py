from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNEL_NAMES, STATIC_VARIABLES
from mosaic_core.model.checkpoint import load_model, write_random_bundle
from mosaic_core.model.config import BottleneckConfig, ModelConfig, StageConfig
from mosaic_core.model.mosaic import Mosaic

INIT_TIME = np.datetime64("2026-02-28T18", "ns")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def small_config() -> ModelConfig:
    """All 82 channels on the real grid, as little network as possible."""
    heads = {"num_heads": 4, "block_attn_size": 48, "sparse_block_size": 12}
    return ModelConfig(
        dim=16,
        num_heads=4,
        k_neighbors=3,
        variables=CHANNEL_NAMES,
        static_variables=STATIC_VARIABLES,
        num_history_steps=2,
        step_stride=1,
        stages=(
            StageConfig(
                nside=4, dim=16, sparse_block_count=2, encoder_depth=1, decoder_depth=1, **heads
            ),
        ),
        bottleneck=BottleneckConfig(nside=2, dim=32, sparse_block_count=2, depth=1, **heads),
    )


@pytest.fixture(scope="session")
def statics() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((LONGITUDE.size, LATITUDE.size, 3), np.float32)


@pytest.fixture(scope="session")
def statistics() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    return random.normal(0, 5, 82), random.uniform(0.5, 20, 82)


@pytest.fixture(scope="session")
def small_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    small_config: ModelConfig,
    statics: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    write_random_bundle(directory, small_config, 7, *statistics, statics, variant="small")
    return directory


@pytest.fixture(scope="session")
def small_model(small_bundle: Path) -> Mosaic:
    return load_model(small_bundle, "small")


@pytest.fixture
def analyses(statistics: tuple[np.ndarray, np.ndarray]) -> xr.Dataset:
    """Two made-up states 6 h apart."""
    mean, std = (values[:, None, None] for values in statistics)
    noise = np.random.default_rng(5).standard_normal((2, 82, 121, 240))
    times = INIT_TIME + np.array([-6, 0], "timedelta64[h]")
    return channels_to_dataset((mean + std * noise).astype(np.float32), {"time": times})
