"""A member of an old cycle, computed again by the real model from what was published."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import realistic
import torch
import xarray as xr

from flows.progress import LogReporter
from flows.rebuild import parse_members, rebuild_members
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, ModelError, PublishError, StoreError
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.forecaster import Forecaster
from mosaic_core.model.checkpoint import write_random_bundle
from mosaic_core.model.config import builtin_config
from postprocess.forecast_spec import ForecastSpec
from postprocess.objects.root import open_root
from postprocess.pointer import current_manifest
from postprocess.product_store import write_product
from postprocess.publish import publish
from postprocess.recipe import read_recipe
from postprocess.retention import Rule, retain
from postprocess.rounding import mantissa_bits
from postprocess.store import ForecastWriter

CYCLE = Cycle.parse("2020-01-01T00Z")
NUMBERS = (0, 1, 2)
STEPS = 1


@dataclasses.dataclass(frozen=True)
class Published:
    root: str
    weights: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """An old cycle of three members and one step; the forecast itself is pruned away."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("recipe")
    weights, staged, root = folder / "weights", folder / "staged", str(folder / "root")
    fields = realistic.fields(0)
    mean, deviation = fields.mean(axis=(1, 2)), fields.std(axis=(1, 2)) + 1e-9
    static = np.random.default_rng(3).standard_normal((240, 121, 3), np.float32)
    write_random_bundle(weights, builtin_config("mini"), 7, mean, deviation, static)
    forecaster = Forecaster.load(weights, "mini", device="cpu")
    times = [each.init_time for each in CYCLE.history(4, 6)]
    history = np.stack([fields * np.float32(1 + 1e-4 * t) for t in range(4)])
    state = channels_to_dataset(history, {"time": np.array(times)})
    made = dataclasses.replace(made_up.provenance(), weights_sha256=forecaster.weights_sha256)
    leads = tuple(
        np.timedelta64(6 * step, "h").astype("timedelta64[ns]") for step in range(STEPS + 1)
    )
    spec = ForecastSpec(CYCLE.init_time, NUMBERS, leads, made)
    with ForecastWriter(staged / "forecast.zarr", spec) as writer:
        stream = forecaster.forecast(
            state, numbers=NUMBERS, steps=STEPS, mantissa_bits=mantissa_bits(spec.rounding)
        )
        for step in stream:
            writer.write(step)
    write_product(staged / "initial_state.zarr", state, spec.attributes())
    publish(staged, root, cycle=CYCLE, run_id="run-1")
    newer = dataclasses.replace(spec, init_time=CYCLE.shift(6).init_time)
    with ForecastWriter(folder / "newer" / "forecast.zarr", newer) as writer:
        for step in made_up.steps(newer):
            writer.write(step)
    publish(folder / "newer", root, cycle=CYCLE.shift(6), run_id="run-1")
    for _ in range(2):
        retain(open_root(root), {"forecast": Rule(days=0), "other": Rule()}, grace=-made_up.SECOND)
    assert not (Path(root) / f"cycles/{CYCLE.id}/run-1/forecast.zarr").exists()
    return Published(root, weights)


def test_a_member_is_rebuilt_to_the_bit_after_the_forecast_is_gone(
    published: Published, tmp_path: Path
) -> None:
    said = rebuild_members(
        CYCLE,
        published.root,
        published.weights,
        "2,0",
        tmp_path / "again.zarr",
        "cpu",
        LogReporter(),
    )
    assert "2 of 3 members, every bit as published" in said
    with xr.open_zarr(tmp_path / "again.zarr", chunks=None) as dataset:
        assert dataset["number"].values.tolist() == [2, 0]
        assert dataset.attrs["cycle"] == CYCLE.label


def test_other_bits_are_told(published: Published, tmp_path: Path) -> None:
    """A member under another number, as if the noise or the device had changed."""
    from postprocess.recipe import differing_shards

    recipe = read_recipe(open_root(published.root), CYCLE)
    rebuild_members(
        CYCLE, published.root, published.weights, "1", tmp_path / "a.zarr", "cpu", LogReporter()
    )
    assert differing_shards(recipe, (1,), tmp_path / "a.zarr") == []
    assert len(differing_shards(recipe, (2,), tmp_path / "a.zarr")) == 82


def elsewhere(monkeypatch: pytest.MonkeyPatch, killed_at: int = -1) -> None:
    """Another kind of device, with other bits; it may be interrupted at a step."""
    compute = Forecaster.forecast

    def forecast(self: Forecaster, *arguments: Any, **options: Any) -> Iterator[ForecastStep]:
        for step in compute(self, *arguments, **options):
            if step.step == killed_at:
                raise KeyboardInterrupt
            yield dataclasses.replace(step, fields=step.fields * np.float32(0.5))

    monkeypatch.setattr(Forecaster, "forecast", forecast)
    monkeypatch.setattr(Forecaster, "device_name", "another kind")


def test_what_another_device_finished_is_told_and_refused_before_computing(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.zarr"
    arguments = (CYCLE, published.root, published.weights, "1", output, "cpu", LogReporter())
    with monkeypatch.context() as device:
        elsewhere(device)
        with pytest.raises(StoreError, match="82 shards differ") as told:
            rebuild_members(*arguments)
        assert "computed on another kind with" in told.value.what
    with xr.open_zarr(output, chunks=None) as dataset:
        assert dataset.attrs["device"] == "another kind"
    with monkeypatch.context() as idle:
        idle.setattr(Forecaster, "forecast", None)
        with pytest.raises(StoreError, match="there is a store here already"):
            rebuild_members(*arguments)
    shutil.rmtree(output)
    assert "every bit as published" in rebuild_members(*arguments)
    monkeypatch.setattr(Forecaster, "forecast", None)
    assert "every bit as published" in rebuild_members(*arguments), "finished, not computed again"


def test_what_another_device_began_is_begun_anew(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (published.root, published.weights, "1", tmp_path / "a.zarr", "cpu", LogReporter())
    with monkeypatch.context() as device:
        elsewhere(device, killed_at=1)
        with pytest.raises(KeyboardInterrupt):
            rebuild_members(CYCLE, *arguments)
    assert (tmp_path / ".a.zarr.partial").exists()
    assert "every bit as published" in rebuild_members(CYCLE, *arguments)


def test_other_weights_are_refused(published: Published, tmp_path: Path) -> None:
    other = tmp_path / "weights"
    static = np.zeros((240, 121, 3), np.float32)
    write_random_bundle(other, builtin_config("mini"), 8, np.zeros(82), np.ones(82), static)
    with pytest.raises(ModelError, match="the cycle was made with"):
        rebuild_members(
            CYCLE, published.root, other, "all", tmp_path / "x.zarr", "cpu", LogReporter()
        )
    assert not (tmp_path / "x.zarr").exists()


def test_a_full_size_model_is_rebuilt_on_a_cpu_only_on_purpose(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    large = tmp_path / "weights" / "mini.safetensors"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(850_000_000)
    arguments = (CYCLE, published.root, large.parent, "1", tmp_path / "x")
    with pytest.raises(InputError, match="would take days on a CPU") as refused:
        rebuild_members(*arguments, "auto", LogReporter())
    assert "--device cpu" in refused.value.remedy
    with pytest.raises(ModelError):
        rebuild_members(*arguments, "cpu", LogReporter())


def test_what_cannot_be_rebuilt_is_told(published: Published, tmp_path: Path) -> None:
    arguments = (published.root, published.weights)
    with pytest.raises(InputError, match=r"members \[7\] were not part"):
        rebuild_members(CYCLE, *arguments, "1,7", tmp_path / "x", "cpu", LogReporter())
    with pytest.raises(InputError, match="is not published"):
        rebuild_members(CYCLE.shift(24), *arguments, "1", tmp_path / "x", "cpu", LogReporter())
    with pytest.raises(PublishError, match="without its initial state"):
        rebuild_members(CYCLE.shift(6), *arguments, "1", tmp_path / "x", "cpu", LogReporter())


def test_a_manifest_that_does_not_tell_how_the_run_was_made_is_refused(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older mosaic-ops may have written it."""
    root = open_root(published.root)
    manifest = current_manifest(root, CYCLE)
    assert manifest is not None
    told = {key: value for key, value in manifest.provenance.items() if key != "batch_size"}
    older = manifest.model_copy(update={"provenance": told})
    monkeypatch.setattr("postprocess.recipe.current_manifest", lambda *_: older)
    with pytest.raises(PublishError, match="does not tell batch_size"):
        read_recipe(root, CYCLE)


def test_a_damaged_initial_state_is_refused(published: Published) -> None:
    run = Path(published.root) / f"cycles/{CYCLE.id}/run-1/initial_state.zarr"
    path = next(path for path in sorted((run / "temperature").glob("c.*")))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(StoreError, match="SHA-256"):
            read_recipe(open_root(published.root), CYCLE)
    finally:
        path.write_bytes(good)


def test_members_are_read_and_bad_ones_refused() -> None:
    assert parse_members("0,3,7-9", (0,)) == (0, 3, 7, 8, 9)
    assert parse_members("all", (4, 5)) == (4, 5)
    for bad in ("", "a", "1-", "-3", "1;2"):
        with pytest.raises(InputError, match="cannot read members"):
            parse_members(bad, (0,))
