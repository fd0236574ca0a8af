from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mosaic_core.contract.errors import InputError, ModelError
from mosaic_core.contract.files import sha256_file
from mosaic_core.model.checkpoint import (
    BUNDLE,
    STATICS,
    load_model,
    random_weights,
    write_arrays,
    write_random_bundle,
)
from mosaic_core.model.config import ModelConfig, builtin_config
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.parameters import PREFIX, install_parameters, published_tables, read_weights

POSTPROCESS = "postprocess.3.weight"


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may break."""
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def save_torch(bundle: Path, content: object) -> Path:
    """Replace the bundle's safetensors by a torch file."""
    (bundle / "small.safetensors").unlink(missing_ok=True)
    path = bundle / "small_best.pt"
    torch.save(content, path)
    return path


def state(model: Mosaic) -> dict[str, Any]:
    return {PREFIX + name: value.clone() for name, value in model.state_dict().items()}


def test_a_bundle_loads_and_says_where_it_came_from(small_bundle: Path) -> None:
    model = load_model(small_bundle, "small")
    origin = model.provenance
    assert origin is not None
    assert (origin.trained, origin.source) == (False, "random weights, seed 7")
    names = {"small.safetensors", "norm_stats_small.npz", STATICS}
    assert origin.sha256 == {name: sha256_file(small_bundle / name) for name in names}
    assert model.dtype == torch.float32
    assert not model.training


def test_the_same_seed_writes_the_same_bytes(
    small_bundle: Path,
    tmp_path: Path,
    small_config: ModelConfig,
    statics: np.ndarray,
    statistics: tuple[np.ndarray, np.ndarray],
) -> None:
    write_random_bundle(tmp_path, small_config, 7, *statistics, statics, variant="small")
    digests = [sha256_file(path / "small.safetensors") for path in (small_bundle, tmp_path)]
    assert digests[0] == digests[1]
    assert not torch.equal(
        random_weights(small_config, 8)[POSTPROCESS], random_weights(small_config, 7)[POSTPROCESS]
    )


def test_the_demonstration_model_is_small_and_takes_a_step(
    tmp_path: Path, statics: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]
) -> None:
    write_random_bundle(tmp_path, builtin_config("mini"), 1, *statistics, statics)
    model = load_model(tmp_path, "mini")
    assert sum(parameter.numel() for parameter in model.parameters()) < 1e6
    with torch.no_grad():
        state = model.step(torch.zeros(1, 4, 29_040, 82), torch.zeros(4), torch.ones(1, 32))
    assert 0.1 < float(state.std()) < 1


@pytest.mark.parametrize("form", ["prefixed", "bare", "flat"])
def test_torch_files_load_with_or_without_prefix_and_wrapper(
    bundle: Path, small_model: Mosaic, form: str
) -> None:
    weights = state(small_model)
    if form == "bare":
        weights = {name.removeprefix(PREFIX): value for name, value in weights.items()}
    content = weights if form == "flat" else {"model_state_dict": weights, "epoch": 3, "ema": [1]}
    save_torch(bundle, content)
    loaded = load_model(bundle, "small")
    assert torch.equal(loaded.state_dict()[POSTPROCESS], small_model.state_dict()[POSTPROCESS])


def test_half_precision_keeps_the_geometry_in_float32(small_bundle: Path) -> None:
    model = load_model(small_bundle, "small", dtype=torch.float16)
    assert model.dtype == torch.float16
    assert model.geometry.statics.dtype == model.normalization.std.dtype == torch.float32


def test_missing_extra_and_misshapen_tensors_are_all_listed(
    bundle: Path, small_model: Mosaic
) -> None:
    weights = state(small_model)
    del weights["model.bottleneck.blocks.0.ffn.w2.weight"]
    weights["model.bottleneck.blocks.0.ffn.w4.weight"] = torch.zeros(2)
    weights["model.decoder_stages.7.blocks.0.attention.q_rope.cos_freqs"] = torch.zeros(2)
    weights[PREFIX + POSTPROCESS] = torch.zeros(81, 16)
    weights["model.preprocess.0.weight"] = weights["model.preprocess.0.weight"].long()
    weights["model.preprocess.3.weight"][0, 0] = torch.inf
    path = save_torch(bundle, {"model_state_dict": weights})
    with pytest.raises(ModelError) as refused:
        load_model(bundle, "small")
    for fault in (
        "6 tensors do not fit",
        "bottleneck.blocks.0.ffn.w2.weight: missing, expected (32, 128)",
        "bottleneck.blocks.0.ffn.w4.weight: unknown, (2,)",
        "decoder_stages.7.blocks.0.attention.q_rope.cos_freqs: unknown",
        "postprocess.3.weight: shape (81, 16), expected (82, 16)",
        "preprocess.0.weight: type torch.int64",
        "preprocess.3.weight: has values that are not finite",
    ):
        assert fault in refused.value.what
    assert refused.value.where == str(path)


def test_tables_in_the_file_are_compared_and_never_used(
    small_model: Mosaic, caplog: pytest.LogCaptureFixture
) -> None:
    weights = dict(small_model.state_dict()) | published_tables(small_model.geometry)
    rotation = small_model.geometry.rotations[0]
    assert rotation is not None
    rope = "encoder_stages.0.blocks.0.attention.k_rope"
    weights |= {f"{rope}.cos_freqs": rotation.cos, f"{rope}.sin_freqs": rotation.sin + 1e-3}
    weights["static_vars"] = weights["static_vars"][:, None]
    weights["interp_to_hp.neighbors"] = weights["interp_to_hp.neighbors"].clone()
    weights["interp_to_hp.neighbors"][3, 1] += 5
    weights["downsample_layers.0.rel_pos"] = torch.zeros(2, 12)
    with caplog.at_level(logging.WARNING):
        install_parameters(small_model, weights, "file.pt")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert any("interp_to_hp.neighbors: 1 of 576 values differ, by up to 5" in m for m in said)
    assert any("k_rope.sin_freqs: 384 of 384 values differ, by up to 0.001" in m for m in said)
    assert any("downsample_layers.0.rel_pos: shape (2, 12), computed (48, 12)" in m for m in said)


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_by_type(
    bundle: Path, small_model: Mosaic, tmp_path: Path, legacy: bool
) -> None:
    content = {"model_state_dict": state(small_model), "trap": Trap(tmp_path / "witness")}
    path = save_torch(bundle, content)
    if legacy:
        torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError) as refused:
        load_model(bundle, "small")
    assert "posix.system" in refused.value.what
    assert "dangerously_unpickle=True (--dangerously-unpickle)" in refused.value.remedy
    assert not (tmp_path / "witness").exists()
    load_model(bundle, "small", dangerously_unpickle=True)
    assert (tmp_path / "witness").exists()


@pytest.mark.parametrize("name", ["small_best.pt", "small.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_damaged_files_are_named(bundle: Path, small_model: Mosaic, name: str, damage: str) -> None:
    whole = (bundle / "small.safetensors").read_bytes()
    if name.endswith(".pt"):
        whole = save_torch(bundle, {"model_state_dict": state(small_model)}).read_bytes()
    broken = {"empty": b"", "cut": whole[: len(whole) // 2], "noise": b"\x93NUMPY" * 100}[damage]
    (bundle / name).write_bytes(broken)
    with pytest.raises(ModelError, match="not a readable weights file") as refused:
        load_model(bundle, "small")
    assert name in refused.value.where


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no model_state_dict"),
        ({}, "no model_state_dict"),
        ({"model_state_dict": {"model.a": 3, "b": torch.zeros(1)}}, "not tensors: model.a"),
    ],
)
def test_files_of_another_kind(bundle: Path, content: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_weights(save_torch(bundle, content))


def test_nothing_there(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        load_model(tmp_path / "nowhere", "small")
    with pytest.raises(ModelError, match="no such weights file"):
        read_weights(tmp_path / "nowhere.pt")
    (bundle / "small.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither small\.safetensors nor small_best\.pt"):
        load_model(bundle, "small")


def test_a_device_that_is_not_there(small_bundle: Path) -> None:
    with pytest.raises(ModelError, match="device cuda:99 cannot be used"):
        load_model(small_bundle, "small", device="cuda:99")
    with pytest.raises(ModelError, match="device abacus cannot be used"):
        load_model(small_bundle, "small", device="abacus")


def test_a_bundle_info_of_another_form(bundle: Path) -> None:
    (bundle / BUNDLE).write_text(json.dumps({"trained": "perhaps"}))
    with pytest.raises(ModelError, match=r"not a valid bundle\.json"):
        load_model(bundle, "small")
    (bundle / BUNDLE).unlink()
    with pytest.raises(ModelError, match="no built-in configuration 'small'"):
        load_model(bundle, "small")


def replace_statics(bundle: Path, **changes: np.ndarray) -> None:
    arrays = dict(np.load(bundle / STATICS)) | changes
    write_arrays(bundle / STATICS, **arrays)


def broken_statics(kind: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    hole = arrays["data"].copy()
    hole[3, 4, 1] = np.nan
    return {
        "north first": {"latitude": arrays["latitude"][::-1]},
        "west first": {"longitude": arrays["longitude"] - 180},
        "transposed": {"data": arrays["data"].transpose(1, 0, 2)},
        "hole": {"data": hole},
        "coarse": {"latitude": arrays["latitude"][::2], "longitude": arrays["longitude"] * 1.01},
    }[kind]


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("north first", ["latitude runs north to south"]),
        ("west first", ["longitude starts at -180.0, expected 0"]),
        ("transposed", ["data has shape (121, 240, 3), expected (240, 121, 3)"]),
        ("hole", ["not finite in land_sea_mask"]),
        ("coarse", ["latitude is not -90 to 90", "longitude is not 0 to 358.5"]),
    ],
)
def test_wrong_statics_are_refused(bundle: Path, kind: str, messages: list[str]) -> None:
    replace_statics(bundle, **broken_statics(kind, dict(np.load(bundle / STATICS))))
    with pytest.raises(ModelError) as refused:
        load_model(bundle, "small")
    assert refused.value.where == str(bundle / STATICS)
    assert all(message in refused.value.what for message in messages)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (np.zeros(81), np.ones(81), r"state_mean has shape \(81,\)"),
        (np.zeros(82), np.r_[np.ones(81), 0], "not positive for vertical_velocity_1000"),
        (np.r_[np.nan, np.zeros(81)], np.ones(82), "not finite or .* for 2m_temperature"),
        (np.zeros(82), -np.ones(82), "not positive"),
    ],
)
def test_wrong_statistics_are_refused(
    bundle: Path, mean: np.ndarray, std: np.ndarray, message: str
) -> None:
    write_arrays(bundle / "norm_stats_small.npz", state_mean=mean, state_std=std)
    with pytest.raises(ModelError, match=message):
        load_model(bundle, "small")


def test_npz_files_that_are_missing_damaged_or_lack_arrays(bundle: Path) -> None:
    path = bundle / "norm_stats_small.npz"
    write_arrays(path, state_mean=np.zeros(82))
    with pytest.raises(ModelError, match="has no state_std"):
        load_model(bundle, "small")
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ModelError, match="not readable as npz"):
        load_model(bundle, "small")
    path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        load_model(bundle, "small")


def test_a_random_bundle_refuses_what_would_not_load(
    tmp_path: Path, small_config: ModelConfig, statics: np.ndarray
) -> None:
    with pytest.raises(ModelError, match="not positive"):
        write_random_bundle(tmp_path, small_config, 0, np.zeros(82), np.zeros(82), statics)
    with pytest.raises(InputError, match="data has shape"):
        write_random_bundle(tmp_path, small_config, 0, np.zeros(82), np.ones(82), statics[:9])
    assert not list(tmp_path.iterdir())
