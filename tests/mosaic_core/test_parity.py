from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from flows.cli.model import model as command
from mosaic_core.contract.errors import ModelError
from mosaic_core.model.config import ModelConfig, parse_config
from mosaic_core.model.mesh import build_geometry
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.normalize import normalization
from mosaic_core.parity import deviation, run_parity
from mosaic_core.rollout import predict
from mosaic_core.state import Clock

TOLERANCE = 5e-6
CASES = ["micro-hres", "micro-era5"]


@pytest.mark.parametrize("case", CASES)
def test_golden_cases_agree_on_every_tap_and_step(golden: Path, case: str) -> None:
    report = run_parity(golden / case)
    assert len(report.taps) == 14
    assert len(report.rms_per_step) == 3
    worst = max(
        [report.trajectory.rms, *report.rms_per_step, *(tap.rms for tap in report.taps.values())]
    )
    assert worst <= TOLERANCE


def test_float16_on_the_cpu_is_as_coarse_as_float16(golden: Path) -> None:
    report = run_parity(golden / "micro-hres", dtype="float16")
    assert 1e-5 < report.rms_per_step[0] < 1e-2
    assert report.taps["bottleneck"].rms < 1e-2


def test_the_command_prints_one_line_of_json(golden: Path) -> None:
    result = CliRunner().invoke(command, ["parity", str(golden / "micro-era5")])
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    report = json.loads(line)
    assert list(report) == ["case", "device", "dtype", "runner", "trajectory", "taps"]
    assert list(report["trajectory"]) == ["rms", "max", "rms_per_step"]
    assert list(report["taps"]["bottleneck"]) == ["rms", "max"]
    assert report["case"] == "micro-era5"


def test_deviation_ignores_the_mean_of_each_channel() -> None:
    reference = torch.tensor([[1000.0, 1.0], [1002.0, 3.0]])
    found = deviation(reference + torch.tensor([0.0, 0.5]), reference)
    assert found.rms == pytest.approx(0.5 / 2**0.5)
    assert found.max == pytest.approx(0.5)
    assert deviation(torch.ones(3, 2), torch.ones(3, 2)).rms == 0.0


LEVEL = {"block_attn_size": 12, "sparse_block_size": 6, "sparse_block_count": 2}
# What the golden cases do not vary: numbers of stages, groups, head sizes, odd sizes, switches.
SIZES: dict[str, dict[str, Any]] = {
    "one stage, no groups, one member": {
        "dim": 24,
        "num_heads": 3,
        "stages": [
            {"nside": 2, "dim": 24, "num_heads": 2, "gqa_ratio": 1, "mlp_ratio": 2.5}
            | LEVEL
            | {"encoder_depth": 2, "decoder_depth": 1}
        ],
        "bottleneck": {"nside": 1, "dim": 40, "num_heads": 5, "gqa_ratio": 5, "depth": 1} | LEVEL,
        "sizes": (1, 1, 7, 4),
    },
    "three stages, one channel, long history": {
        "dim": 8,
        "num_heads": 8,
        "num_history_steps": 5,
        "stages": [
            {"nside": nside, "dim": dim, "num_heads": 2, "gqa_ratio": 2, "mlp_ratio": 1.4}
            | LEVEL
            | {"encoder_depth": 1, "decoder_depth": depth}
            for nside, dim, depth in ((8, 8, 1), (4, 16, 0), (2, 8, 2))
        ],
        "bottleneck": {"nside": 1, "dim": 8, "num_heads": 2, "gqa_ratio": 1, "depth": 2} | LEVEL,
        "variables": ["temperature_850"],
        "sizes": (2, 4, 12, 7),
    },
    "no stage, blocks longer than the level, no rope": {
        "dim": 18,
        "num_heads": 9,
        "rope": False,
        "static_variables": ["land_sea_mask"],
        "noise_dim": 5,
        "step_stride": 2,
        "stages": [],
        "bottleneck": {
            "nside": 2,
            "dim": 18,
            "num_heads": 6,
            "gqa_ratio": 3,
            "depth": 2,
            "block_attn_size": 1024,
            "sparse_block_size": 4,
            "sparse_block_count": 100,
        },
        "sizes": (3, 2, 9, 5),
    },
}


def make_case(directory: Path, name: str, values: dict[str, Any]) -> Path:
    """A case of any sizes in the golden format, computed in float64 by the network itself."""
    members, steps, longitudes, latitudes = values.pop("sizes")
    config = parse_config(BASE | values, name)
    random = np.random.default_rng(0)
    grid, channels = (longitudes, latitudes), len(config.variables)
    arrays = {
        "initial_state": random.normal(3, 2, (config.num_history_steps, *grid, channels)),
        "static": random.standard_normal((*grid, len(config.static_variables))),
        "longitude": np.arange(longitudes) * 360 / longitudes,
        "latitude": np.linspace(-90, 90, latitudes),
        "state_mean": np.full(channels, 3.0),
        "state_std": np.full(channels, 2.0),
        "day_year": np.array([0.25, 0.9]),
        "noise": random.standard_normal((steps, members, config.noise_dim)),
    }
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    model = case_model(config, arrays)
    weights = {f"model.{key}": value.clone() for key, value in model.state_dict().items()}
    torch.save({"model_state_dict": weights, "epoch": 1}, directory / f"{name}.pt")
    arrays |= expected(model.double(), arrays, (members, steps, *grid, channels))
    np.savez(directory / f"{name}.npz", **arrays)
    (directory / f"{name}.json").write_text(json.dumps(BASE | values))
    return directory / name


BASE: dict[str, Any] = {
    "k_neighbors": 4,
    "variables": ["2m_temperature", "geopotential_500"],
    "static_variables": ["geopotential_at_surface", "land_sea_mask", "soil_type"],
    "num_history_steps": 1,
    "step_stride": 1,
    "qk_norm": False,
}


def case_model(config: ModelConfig, arrays: dict[str, np.ndarray]) -> Mosaic:
    torch.manual_seed(1)
    geometry = build_geometry(config, arrays["longitude"], arrays["latitude"], arrays["static"])
    statistics = normalization(arrays["state_mean"], arrays["state_std"], config.variables, "")
    return Mosaic(config, geometry, statistics)


def expected(
    model: Mosaic, arrays: dict[str, np.ndarray], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    taps: dict[str, np.ndarray] = {}

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
        taps.setdefault("tap/bottleneck", output.transpose(0, 1).numpy().astype(np.float32))

    model.bottleneck.register_forward_hook(keep)
    history = torch.from_numpy(arrays["initial_state"]).double().flatten(1, 2)
    states = predict(
        model,
        history,
        Clock(*arrays["day_year"]),
        lambda step: torch.from_numpy(arrays["noise"][step - 1]).double(),
        shape[1],
        batch_size=shape[0],
    )
    trajectory = torch.stack(list(states), dim=1).reshape(shape)
    return taps | {"trajectory": trajectory.numpy().astype(np.float32)}


@pytest.mark.parametrize("name", SIZES)
def test_cases_of_any_sizes_run(tmp_path: Path, name: str) -> None:
    report = run_parity(make_case(tmp_path, "case", dict(SIZES[name])))
    assert report.trajectory.rms < TOLERANCE
    assert report.taps["bottleneck"].rms < TOLERANCE


@pytest.fixture
def case(golden: Path, tmp_path: Path) -> Path:
    """A copy of a golden case that a test may break."""
    for suffix in (".json", ".npz", ".pt"):
        shutil.copy(golden / f"micro-era5{suffix}", tmp_path)
    return tmp_path / "micro-era5"


def rewrite(case: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = case.with_suffix(".npz")
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)


def test_a_case_without_taps_still_has_its_trajectory(case: Path) -> None:
    def drop(arrays: dict[str, np.ndarray]) -> None:
        for name in [name for name in arrays if "/" in name]:
            del arrays[name]

    rewrite(case, drop)
    report = run_parity(case)
    assert report.taps == {}
    assert report.trajectory.rms < TOLERANCE


def test_a_wrong_weight_is_noticed(case: Path) -> None:
    content = torch.load(case.with_suffix(".pt"))
    content["model_state_dict"]["model.bottleneck.blocks.0.attention.to_k.weight"] *= 1.001
    torch.save(content, case.with_suffix(".pt"))
    report = run_parity(case)
    assert report.taps["decoder_stages.1"].rms > TOLERANCE
    assert report.taps["downsample_layers.1"].rms < TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("noise"), "has no noise"),
        (lambda a: [a.pop("noise"), a.pop("latitude")], "has no latitude, noise"),
        (lambda a: a.update(noise=a["noise"][:2]), "noise has shape .*, expected"),
        (lambda a: a.update(static=a["static"][..., :2]), "static has shape"),
        (lambda a: a.update(trajectory=a["trajectory"][0]), "trajectory has shape"),
        (lambda a: a.update({"tap/blocks": a["noise"]}), "modules that do not exist: blocks"),
        (lambda a: a.update({"tap/bottleneck": a["noise"]}), "tap bottleneck has shape"),
        (lambda a: a.update(state_std=a["state_std"] * 0), "not positive"),
    ],
)
def test_a_case_that_contradicts_itself_is_refused(
    case: Path, change: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    rewrite(case, change)
    with pytest.raises(ModelError, match=message):
        run_parity(case)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".pt"])
def test_files_that_are_missing_or_damaged_are_named(case: Path, suffix: str) -> None:
    path = case.with_suffix(suffix)
    path.write_bytes(b"PK\x03\x04 not what it was")
    with pytest.raises(ModelError, match=r"not (a )?readable") as refused:
        run_parity(case)
    assert refused.value.where == str(path)
    path.unlink()
    with pytest.raises(ModelError, match="no such file") as refused:
        run_parity(case)
    assert refused.value.where == str(path)


def test_other_refusals(case: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        run_parity(tmp_path / "nowhere" / "case")
    with pytest.raises(ModelError, match="unknown dtype 'float8'"):
        run_parity(case, dtype="float8")
    with pytest.raises(ModelError, match="device cuda:77 cannot be used"):
        run_parity(case, device="cuda:77")
