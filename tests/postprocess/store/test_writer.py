from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
import xarray as xr
import zarr

from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.schema import FORECAST
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.store import ForecastWriter

KILLS = int(os.environ.get("MOSAIC_OPS_TEST_KILLS", "2"))


def write(path: Path, rounding: str = "default", **options: int) -> ForecastWriter:
    spec = made_up.spec(rounding=rounding)
    with ForecastWriter(path, spec, **options) as writer:
        for step in made_up.steps(spec):
            writer.write(step)
    return writer


def digests(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "forecast.zarr"
    write(path)
    return path


def fields_of(dataset: xr.Dataset) -> np.ndarray:
    """(lead, number, channel, latitude, longitude) back from the named variables."""
    dims = ("lead_time", "number", "level", "latitude", "longitude")
    parts = [
        dataset[name].isel(init_time=0).expand_dims(
            () if "level" in dataset[name].dims else ("level",)
        ).transpose(*dims).values
        for name in dataset.data_vars
    ]  # fmt: skip
    return np.concatenate(parts, axis=2)


def test_opens_with_plain_xarray_and_is_a_valid_forecast(stored: Path) -> None:
    with xr.open_zarr(stored) as dataset:
        FORECAST.validate(dataset, where=str(stored))
        assert dataset["temperature"].dims == (
            "init_time", "number", "lead_time", "level", "latitude", "longitude"
        )  # fmt: skip
        assert dataset["lead_time"].dtype == np.dtype("timedelta64[ns]")
        valid = dataset["init_time"].values[:, None] + dataset["lead_time"].values[None, :]
        assert np.array_equal(dataset["valid_time"].values, valid)
        assert "valid_time" in dataset.coords
        assert dataset.attrs["run_id"] == "test-run"
        assert dataset["temperature"].attrs["quantization_nsb"] == 12


def test_values_are_the_forecast_to_the_bit(stored: Path) -> None:
    with xr.open_zarr(stored, chunks=None) as dataset:
        assert np.array_equal(fields_of(dataset), made_up.expected(made_up.spec()))


def test_fields_that_are_not_rounded_as_the_store_says_are_refused(tmp_path: Path) -> None:
    unrounded = next(made_up.steps(made_up.spec(rounding="none")))
    with (
        pytest.raises(StoreError, match="2m_temperature is not rounded to 12 bits"),
        ForecastWriter(tmp_path / "f.zarr", made_up.spec()) as writer,
    ):
        writer.write(unrounded)
    made_up.round_maps(unrounded.fields)
    unrounded.fields[0, 5, 60, 7] = np.nan  # its bits are its own: health is a product's matter
    with ForecastWriter(tmp_path / "f.zarr", made_up.spec(leads=1)) as writer:
        writer.write(unrounded)


def test_without_rounding_every_bit_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "f.zarr", rounding="none")
    with xr.open_zarr(tmp_path / "f.zarr", chunks=None) as dataset:
        wanted = made_up.expected(made_up.spec(rounding="none"))
        assert np.array_equal(fields_of(dataset), wanted)
        assert "quantization_info" not in dataset.variables
        assert "quantization_nsb" not in dataset["temperature"].attrs


def test_one_map_is_a_chunk_and_one_shard_holds_all_leads(stored: Path) -> None:
    array = zarr.open_group(stored)["geopotential"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (1, 1, 1, 1, 121, 240)
    assert array.shards == (1, 1, 3, 1, 121, 240)
    assert len(list((stored / "geopotential").glob("c.0.*.0.*.0.0"))) == 2 * 13


def test_same_forecast_same_bytes_with_any_number_of_workers(stored: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        write(tmp_path / f"{workers}.zarr", workers=workers)
        assert digests(tmp_path / f"{workers}.zarr") == digests(stored)


def test_nothing_is_left_beside_a_finished_store(stored: Path) -> None:
    assert [item.name for item in stored.parent.iterdir()] == [stored.name]


def test_a_finished_store_is_left_alone(stored: Path) -> None:
    before = digests(stored)
    writer = write(stored)
    assert writer.finished
    assert writer.report.leads_skipped == 3
    assert digests(stored) == before


def test_a_finished_store_of_another_forecast_is_refused(stored: Path) -> None:
    other = dataclasses.replace(made_up.spec(), numbers=(5, 6))
    with pytest.raises(StoreError, match="already"):
        ForecastWriter(stored, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 2}, "step 2 came where step 1"),
        ({"step": 0}, "step 0 came where step 1"),
        ({"lead_time": np.timedelta64(7, "h")}, "lead_time"),
        ({"init_time": np.datetime64("2026-11-24T00", "ns")}, "init_time"),
        ({"numbers": (1, 0)}, "numbers"),
        ({"channels": CHANNEL_NAMES[::-1]}, "channels"),
        ({"fields": np.zeros((2, 82, 240, 121), np.float32)}, "grid"),
    ],
)
def test_a_wrong_step_is_refused_and_nothing_becomes_visible(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    stream = made_up.steps(made_up.spec())
    good = next(stream)
    writer = ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    writer.write(good)
    with pytest.raises(StoreError, match=message):
        writer.write(dataclasses.replace(next(stream), **change))
    with pytest.raises(StoreError, match="1 of 3 leads"):
        writer.close()
    assert not (tmp_path / "f.zarr").exists()


def write_some(path: Path, count: int) -> None:
    """The first `count` leads, then an end without closing the block."""
    writer = ForecastWriter(path, made_up.spec())
    for step in itertools.islice(made_up.steps(made_up.spec()), count):
        writer.write(step)
    with pytest.raises(StoreError, match=f"{count} of 3 leads"):
        writer.close()
    assert not path.exists()


def test_missing_leads_are_an_error_and_the_next_attempt_goes_on(
    stored: Path, tmp_path: Path
) -> None:
    path, spec = tmp_path / "forecast.zarr", made_up.spec()
    write_some(path, 2)
    with ForecastWriter(path, spec) as writer:
        assert writer.completed == 2
        for step in made_up.steps(spec):
            if step.step >= 2:
                writer.write(step)
    assert writer.report.leads_written == 1
    assert digests(path) == digests(stored)


def test_another_forecast_does_not_continue_a_half_written_one(tmp_path: Path) -> None:
    write_some(tmp_path / "f.zarr", 1)
    writer = ForecastWriter(tmp_path / "f.zarr", made_up.spec(rounding="none"))
    assert writer.completed == 0
    with pytest.raises(StoreError, match="0 of 3"):
        writer.close()


def test_damage_to_a_half_written_store_costs_only_the_damaged_leads(
    stored: Path, tmp_path: Path
) -> None:
    path = tmp_path / "forecast.zarr"
    write_some(path, 2)
    shard = tmp_path / ".forecast.zarr.partial" / "temperature/c.0.1.0.4.0.0"
    content = bytearray(shard.read_bytes())
    content[-7] ^= 16
    shard.write_bytes(content)
    with ForecastWriter(path, made_up.spec()) as writer:
        assert writer.completed == 1
        for step in made_up.steps(made_up.spec()):
            writer.write(step)
    assert digests(path) == digests(stored)


def test_two_writers_of_one_store_do_not_meet(tmp_path: Path) -> None:
    first = ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    with pytest.raises(StoreError, match="another process"):
        ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    with pytest.raises(StoreError, match="of 3 leads"):
        first.close()


def test_an_error_in_a_worker_reaches_the_caller_and_ends_the_attempt(tmp_path: Path) -> None:
    stream = made_up.steps(made_up.spec())
    writer = ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    longest_file = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, longest_file[1]))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            writer.write(next(stream))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, longest_file)
    with pytest.raises(StoreError, match="step 0 could not be stored"):
        writer.write(next(stream))
    with pytest.raises(StoreError, match="0 of 3 leads"):
        writer.close()
    assert not (tmp_path / "f.zarr").exists()


def test_a_full_disk_is_a_clear_error_and_the_next_attempt_finishes(
    stored: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: the write fails half way."""
    path = tmp_path / "forecast.zarr"
    command = (sys.executable, made_up.__file__, str(path), "2", "3", "0")
    limited = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)),
    )  # fmt: skip
    assert limited.returncode != 0
    assert "StoreError" in limited.stderr
    assert "make room" in limited.stderr
    assert not path.exists()
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert digests(path) == digests(stored)


def open_files() -> dict[int, Path]:
    """What this process has open."""
    return {
        int(link.name): link.readlink()
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink()
    }


def test_shards_are_held_open_beyond_a_soft_limit(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
    try:
        writer = ForecastWriter(tmp_path / "f.zarr", made_up.spec())
        held = [name for name in open_files().values() if ".f.zarr.partial" in name.parts]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(held) == 164
    with pytest.raises(StoreError, match="0 of 3 leads"):
        writer.close()
    assert not [name for name in open_files().values() if ".f.zarr.partial" in name.parts]


def test_where_not_all_shards_can_be_open_the_bytes_are_the_same(
    stored: Path, tmp_path: Path
) -> None:
    """The store has 164 shards."""
    path = tmp_path / "forecast.zarr"
    subprocess.run(
        (sys.executable, made_up.__file__, str(path), "2", "3", "0"), check=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150)),
    )  # fmt: skip
    assert digests(path) == digests(stored)


def test_a_store_removed_while_it_is_written_is_an_error_at_once(tmp_path: Path) -> None:
    path, stream = tmp_path / "f.zarr", made_up.steps(made_up.spec())
    writer = ForecastWriter(path, made_up.spec())
    writer.write(next(stream))
    shutil.rmtree(tmp_path / ".f.zarr.partial")
    with pytest.raises(StoreError, match="removed or changed"):
        writer.write(next(stream))
    with pytest.raises(StoreError, match="1 of 3 leads"):
        writer.close()
    assert not path.exists()
    write(path)


@pytest.mark.parametrize("harm", ["unlink", "longer"])
def test_a_shard_changed_while_it_is_written_does_not_become_visible(
    stored: Path, tmp_path: Path, harm: str
) -> None:
    path = tmp_path / "forecast.zarr"
    shard = tmp_path / ".forecast.zarr.partial/temperature/c.0.1.0.4.0.0"
    writer = ForecastWriter(path, made_up.spec())
    for step in made_up.steps(made_up.spec()):
        writer.write(step)
    if harm == "unlink":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes() + b"?")
    with pytest.raises(StoreError, match="removed or changed"):
        writer.close()
    assert not path.exists()
    write(path)
    assert digests(path) == digests(stored)


def test_an_attempt_that_cannot_begin_lets_go_of_the_store(tmp_path: Path) -> None:
    in_the_way = tmp_path / ".f.zarr.partial"
    in_the_way.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write") as kept:
        ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    in_the_way.unlink()
    write(tmp_path / "f.zarr")
    assert kept.value.remedy


def test_a_record_that_does_not_fit_is_told_as_a_full_disk(tmp_path: Path) -> None:
    journal = tmp_path / ".f.zarr.journal"
    writer = ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, next(fd for fd, name in open_files().items() if name == journal))
    os.close(full)
    with pytest.raises(StoreError, match="cannot write: No space"):
        writer.write(next(made_up.steps(made_up.spec())))
    with pytest.raises(StoreError, match="0 of 3 leads"):
        writer.close()


def test_no_lead_is_held_and_the_time_the_caller_waits_is_measured(tmp_path: Path) -> None:
    """The made-up producer overwrites its array at once, and memory does not grow by leads."""
    spec = made_up.spec(members=3, leads=6)
    lead_bytes = 3 * 82 * 240 * 121 * 4
    stream = made_up.steps(spec)
    with ForecastWriter(tmp_path / "f.zarr", spec, workers=1) as writer:
        writer.write(next(stream))
        tracemalloc.start()
        for step in stream:
            writer.write(step)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < lead_bytes / 2
    assert writer.report.seconds_blocked > 0
    assert writer.report.leads_written == 6
    assert writer.report.bytes_in == 6 * lead_bytes


def test_what_is_stored_comes_back_as_steps(stored: Path, tmp_path: Path) -> None:
    """Of a half-written store and of a finished one: the values that readers will see."""
    spec = made_up.spec()
    with xr.open_zarr(stored, chunks=None) as dataset:
        wanted = fields_of(dataset)
    write_some(tmp_path / "f.zarr", 2)
    half = ForecastWriter(tmp_path / "f.zarr", spec)
    for writer, count in ((half, 2), (ForecastWriter(stored, spec), 3)):
        steps = list(writer.stored(writer.completed))
        assert [step.step for step in steps] == list(range(count))
        assert [step.lead_time for step in steps] == list(spec.lead_times[:count])
        for step in steps:
            assert np.array_equal(step.fields, wanted[step.step])


def test_a_damaged_or_missing_shard_does_not_come_back_as_steps(tmp_path: Path) -> None:
    write(tmp_path / "f.zarr")
    shard = tmp_path / "f.zarr/temperature/c.0.1.0.4.0.0"
    good = shard.read_bytes()
    shard.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(StoreError, match="checksum"):
        list(ForecastWriter(tmp_path / "f.zarr", made_up.spec()).stored(3))
    shard.write_bytes(good[:-1])
    with pytest.raises(StoreError, match="checksum"):
        ForecastWriter(tmp_path / "f.zarr", made_up.spec())
    shard.unlink()
    with pytest.raises(StoreError, match="cannot read a shard"):
        ForecastWriter(tmp_path / "f.zarr", made_up.spec())


def test_killed_anywhere_it_resumes_to_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, over and over, until one attempt comes through."""
    path = tmp_path / "forecast.zarr"
    command = (sys.executable, made_up.__file__, str(path), "2", "3", "0.15")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    chance = random.Random(7)
    for _ in range(KILLS):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not (tmp_path / ".forecast.zarr.journal").exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if path.exists():
            assert digests(path) == digests(stored)
    subprocess.run(command, env=environment, check=True)
    assert digests(path) == digests(stored)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
