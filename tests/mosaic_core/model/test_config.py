from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.variants import VARIANTS
from mosaic_core.model.config import BUILTIN, builtin_config, parse_config, read_config
from mosaic_core.model.mosaic import Mosaic


@pytest.mark.parametrize(("variant", "parameters"), [("hres", 214_310_400), ("era5", 214_184_448)])
def test_the_published_variants_have_the_published_parameters(
    variant: str, parameters: int, golden: Path
) -> None:
    published = json.loads((golden / f"{variant}-parameter-shapes.json").read_text())
    with torch.device("meta"):
        model = Mosaic(builtin_config(variant))
    ours = {f"model.{name}": list(value.shape) for name, value in model.state_dict().items()}
    assert ours == published
    assert sum(value.numel() for value in model.parameters()) == parameters


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_history_and_step_are_those_of_the_contract(name: str) -> None:
    config, variant = BUILTIN[name], VARIANTS[name]
    assert config.step_hours == variant.step_hours == variant.history_spacing_hours
    assert config.num_history_steps == variant.history_count


def test_json_and_back(golden: Path) -> None:
    config = read_config(golden / "micro-era5.json")
    assert parse_config(config.model_dump(mode="json"), "here") == config
    assert (config.features, config.stages[1].kv_heads, config.stages[1].hidden) == (16, 4, 192)


def test_blocks_longer_than_the_level_mean_all_of_it(golden: Path) -> None:
    values = json.loads((golden / "micro-hres.json").read_text())
    values["bottleneck"] |= {
        "block_attn_size": 100,
        "sparse_block_size": 50,
        "sparse_block_count": 9,
    }
    level = parse_config(values, "here").bottleneck
    assert (level.local_block, level.sparse_block, level.selected_blocks) == (12, 12, 1)


TOP: dict[str, dict[str, Any]] = {
    "qk_norm = True is not supported": {"qk_norm": True},
    "no_compression = True is not supported": {"no_compression": True},
    "sparse_every = 2 is not supported": {"sparse_every": 2},
    "qkv_compress_ratio = 2": {"qkv_compress_ratio": 2},
    "rmsnorm_elementwise_affine = True": {"rmsnorm_elementwise_affine": True},
    "dim 32 is not a multiple of num_heads 5": {"num_heads": 5},
    "dim 64 is not that of the finest level, 32": {"dim": 64},
    "variables is empty or names one twice": {"variables": ["a", "a"]},
    "static_variables names one twice": {"static_variables": ["a", "a"]},
    "k_neighbors: Input should be greater than 0": {"k_neighbors": 0},
    "wavelets: Extra inputs are not permitted": {"wavelets": 1},
    "noise_dim: Input should be a valid integer": {"noise_dim": "many"},
}
BOTTLENECK: dict[str, dict[str, Any]] = {
    "bottleneck: dim 66 is not a multiple of num_heads 8": {"dim": 66},
    "bottleneck: num_heads 8 is not a multiple of gqa_ratio 3": {"gqa_ratio": 3},
    "bottleneck: head size 72/8 is not a multiple of 4": {"dim": 72},
    "bottleneck: tokens 12 is not a multiple of block_attn_size 5": {"block_attn_size": 5},
    "bottleneck: tokens 12 is not a multiple of sparse_block_size 8": {"sparse_block_size": 8},
    "bottleneck: mlp_ratio 0.001 leaves no hidden width": {"mlp_ratio": 0.001},
    "nside must halve from level to level": {"nside": 2},
    "bottleneck.depth: Field required": {"depth": None},
}


def refusal(golden: Path, top: dict[str, Any], bottleneck: dict[str, Any]) -> str:
    values = json.loads((golden / "micro-hres.json").read_text()) | top
    values["bottleneck"] |= bottleneck
    values["bottleneck"] = {k: v for k, v in values["bottleneck"].items() if v is not None}
    with pytest.raises(ModelError) as refused:
        parse_config(values, "case.json")
    assert refused.value.where == "case.json"
    return str(refused.value)


@pytest.mark.parametrize("message", TOP)
def test_a_switch_or_size_that_cannot_work_is_named(message: str, golden: Path) -> None:
    assert message in refusal(golden, TOP[message], {})


@pytest.mark.parametrize("message", BOTTLENECK)
def test_a_level_that_cannot_work_is_named(message: str, golden: Path) -> None:
    assert message in refusal(golden, {}, BOTTLENECK[message])


def test_all_faults_come_at_once(golden: Path) -> None:
    text = refusal(golden, {"qk_norm": True, "num_heads": 5}, {"gqa_ratio": 3})
    assert all(fault in text for fault in ("qk_norm", "num_heads 5", "gqa_ratio 3"))


def test_nside_must_be_a_power_of_two(golden: Path) -> None:
    values = json.loads((golden / "micro-hres.json").read_text())
    values["stages"] = []
    values["bottleneck"] |= {"nside": 3, "dim": 32}
    with pytest.raises(ModelError, match="nside 3 is not a power of two"):
        parse_config(values, "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"{", "not readable as JSON"), (b"[1]", "not a JSON object")],
)
def test_a_file_that_is_no_configuration(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "case.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_config(path)


def test_an_unknown_variant_names_the_known() -> None:
    with pytest.raises(ModelError, match="era5, hres, mini"):
        builtin_config("nano")
