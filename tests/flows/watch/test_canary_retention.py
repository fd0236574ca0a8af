"""Is a machine fit; what is deleted when."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.ensemble import EnsembleRun
from flows.locks import cycle_lock, is_worked_on
from flows.settings import Settings
from flows.watch import retention
from flows.watch.alerts import records
from flows.watch.canary import (
    Verdict,
    differences,
    examine,
    golden_path,
    refuse_unaccepted,
    statistics,
    tell,
    wave_state,
)
from flows.watch.retention import Removal, free_space
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.files import sha256_file
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import INITIAL_STATE
from mosaic_core.contract.variables import CHANNELS, STATIC_VARIABLES
from mosaic_core.model.checkpoint import write_random_bundle
from mosaic_core.model.config import builtin_config
from tests.flows.records import NEWEST, NOW, settings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data root with the small model, random weights, plausible statistics."""
    root = tmp_path_factory.mktemp("canary")
    rng = np.random.default_rng(1)
    mean = np.array([(c.minimum + c.maximum) / 2 for c in CHANNELS], np.float32)
    deviation = np.array([(c.maximum - c.minimum) / 20 for c in CHANNELS], np.float32)
    static = rng.normal(size=(LONGITUDE.size, LATITUDE.size, len(STATIC_VARIABLES)))
    config = settings(root, device="cpu")
    write_random_bundle(
        config.weights, builtin_config("mini"), 1, mean, deviation, static.astype(np.float32)
    )
    return config


def test_the_state_is_an_initial_state() -> None:
    config = settings(Path("unused"))
    ones = np.ones(len(CHANNELS))
    assert not INITIAL_STATE.faults(wave_state(config, 300 * ones, ones))


def test_the_first_canary_records_the_next_compare_and_damage_is_told(bundle: Settings) -> None:
    first = examine(bundle)
    assert first.is_fit, first.lines
    assert "golden recorded" in first.lines[-1]
    assert examine(bundle).is_fit
    path = golden_path(bundle)
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    assert "golden is damaged" in examine(bundle).summary
    path.write_text(good)
    weights = next(bundle.weights.glob("*.safetensors"))
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"\x00\x00\x80\x3f")
    told = examine(bundle)
    assert not told.is_fit
    assert "weights changed" in told.summary
    assert examine(bundle, record=True).is_fit
    weights.write_bytes(kept)


def test_no_run_with_weights_that_the_canary_has_not_seen(bundle: Settings, tmp_path: Path) -> None:
    """Replaced between two cycles: the worker, which looked when it started, does not notice."""
    assert examine(bundle, record=True).is_fit
    state = tmp_path / "state.zarr"
    wave_state(bundle, *statistics(bundle)).to_zarr(state)
    weights = next(bundle.weights.glob("*.safetensors"))
    kept = weights.read_bytes()
    refuse_unaccepted({weights.name: sha256_file(weights)}, bundle)
    weights.write_bytes(kept[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(ModelError, match=f"since the canary accepted them .{weights.name}"):
        EnsembleRun.prepare(NEWEST, state, bundle)
    golden_path(bundle).unlink()
    refuse_unaccepted({weights.name: "0"}, bundle)
    weights.write_bytes(kept)


def test_other_files_in_the_folder_are_not_the_models(bundle: Settings) -> None:
    """`weights fetch era5` on a machine that makes hres stops nothing."""
    assert examine(bundle, record=True).is_fit
    others = [bundle.weights / name for name in ("era5.safetensors", "norm_stats_era5.npz")]
    for path in others:
        path.write_bytes(b"of another variant")
    assert examine(bundle).is_fit
    assert examine(bundle, record=True).is_fit
    for path in others:
        path.unlink()
    assert examine(bundle).is_fit
    for name in ("norm_stats_mini.npz", "static_vars.npz"):
        refuse_unaccepted({name: sha256_file(bundle.weights / name)}, bundle)
        with pytest.raises(ModelError, match=name):
            refuse_unaccepted({name: "0"}, bundle)


def test_another_rollout_than_the_golden_is_told(bundle: Settings) -> None:
    from flows.watch.canary import Golden

    golden_path(bundle).unlink(missing_ok=True)
    examine(bundle)
    golden = Golden.model_validate_json(golden_path(bundle).read_bytes())
    scales = np.ones(len(CHANNELS))
    assert not differences(golden, golden, scales)
    for wrong in (0.5, float("nan")):
        samples = (golden.samples[0] + wrong, *golden.samples[1:])
        found = golden.model_copy(update={"samples": samples})
        assert "departs from its golden" in differences(golden, found, scales)[0]


def test_a_machine_without_weights_or_device_is_not_fit(tmp_path: Path, bundle: Settings) -> None:
    assert not examine(settings(tmp_path, device="cpu")).is_fit
    away = bundle.model_copy(update={"device": "cuda:7"})
    assert not examine(away).is_fit


def test_each_machine_has_its_own_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path)
    fit, unfit = Verdict(("cuda:0",), ()), Verdict((), ("no memory", "no weights"))
    for host, verdict in (("box-1", unfit), ("box-2", unfit), ("box-2", fit), ("box-1", unfit)):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        tell(verdict, config, NOW)
    found = {record.alert.key: record for record in records(config.alerts)}
    assert found["canary-box-2"].over == NOW
    assert found["canary-box-1"].over is None
    assert found["canary-box-1"].alert.cause == "not fit: no memory; no weights"
    assert found["canary-box-1"].alert.command == "mosaic-ops canary"


def aged(path: Path, hours: float) -> Path:
    """A folder with a file in it, both so old."""
    path.mkdir(parents=True)
    (path / "data").write_bytes(b"x" * 1000)
    moment = NOW.timestamp() - 3600 * hours
    for each in (path / "data", path):
        os.utime(each, (moment, moment))
    return path


def test_retention_deletes_what_is_old_and_idle_and_says_so(tmp_path: Path) -> None:
    config = settings(tmp_path)
    old, young, backfilled = NEWEST.shift(-240), NEWEST.shift(-6), Cycle.parse("2025-01-01T00Z")
    gone = aged(config.downloads / old.id, 200)
    stood_in = aged(config.downloads / f"{old.id}-step6", 200)
    kept = [
        aged(config.downloads / young.id, 5),
        aged(config.downloads / backfilled.id, 5),
        aged(config.staging / old.id, 200),
        aged(config.downloads / "notes", 2000),
    ]
    with cycle_lock(old, config.locks):
        assert not free_space(config, NOW).removals
    said = free_space(config, NOW, dry_run=True)
    assert gone.exists()
    assert "would be freed" in said.summary
    freed = free_space(config, NOW)
    assert not gone.exists()
    assert not kept[2].exists(), "a staged run that nobody finishes"
    assert all(path.exists() for path in (kept[0], kept[1], kept[3]))
    assert {each.path for each in freed.removals} == {gone, stood_in, kept[2]}


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_begins_while_retention_is_at_work_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Between the look and the deletion: it still works on the cycle, or it came and went."""
    config, old = settings(tmp_path), NEWEST.shift(-240)
    fetched = aged(config.downloads / old.id, 200)
    staged = aged(config.staging / old.id, 200)
    held, remove = ExitStack(), shutil.rmtree

    def removing(path: Path, **options: Any) -> None:
        remove(path, **options)
        if path == fetched:
            (staged / "new").write_bytes(b"fresh")
            os.utime(staged / "new", (NOW.timestamp(), NOW.timestamp()))

    def due(*arguments: object) -> list[Removal]:
        found = list(look(*arguments))  # type: ignore[arg-type]
        if not ended:
            held.enter_context(cycle_lock(old, config.locks))
        return found

    look = retention._due
    monkeypatch.setattr(retention, "_due", due)
    monkeypatch.setattr("flows.watch.retention.shutil.rmtree", removing)
    with held:
        freed = free_space(config, NOW)
    assert staged.exists()
    assert [each.path for each in freed.removals] == ([fetched] if ended else [])
    assert fetched.exists() is not ended


def test_retention_holds_the_lock_of_a_cycle_while_it_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, old = settings(tmp_path), NEWEST.shift(-240)
    aged(config.staging / old.id, 200)
    locked: list[bool] = []
    monkeypatch.setattr(
        "flows.watch.retention.shutil.rmtree",
        lambda *_, **__: locked.append(is_worked_on(old, config.locks)),
    )
    free_space(config, NOW)
    assert locked == [True]
