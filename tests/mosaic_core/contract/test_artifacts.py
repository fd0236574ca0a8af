"""Records refuse what they do not know; files are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mosaic_core.contract.artifacts import ForecastStep, StoreRef
from mosaic_core.contract.errors import DataError, StoreError
from mosaic_core.contract.files import sha256_file, write_atomic, write_json_atomic


def test_a_record_round_trips_and_refuses_unknown_and_bad_values(tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    record = StoreRef(address="analyses.zarr", sha256="0" * 64)
    record.write(path)
    assert StoreRef.read(path) == record
    write_json_atomic(path, {"address": "x", "sha256": "nothex", "colour": "blue"})
    with pytest.raises(DataError, match=r"sha256.*colour") as caught:
        StoreRef.read(path)
    assert str(path) in str(caught.value)


def test_a_truncated_record_is_an_error_with_the_file_named(tmp_path: Path) -> None:
    path = tmp_path / "ref.json"
    path.write_text('{"address": "x", ')
    with pytest.raises(DataError, match=r"ref\.json"):
        StoreRef.read(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json_atomic(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    with pytest.raises(TypeError):
        write_atomic(path, "text, not bytes")  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_sha256_matches_a_known_digest(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path).startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_forecast_step_with_the_wrong_shape_is_refused() -> None:
    with pytest.raises(StoreError, match=r"forecast step 3"):
        ForecastStep(
            init_time=np.datetime64("2026-01-01", "ns"),
            step=3,
            lead_time=np.timedelta64(18, "h"),
            numbers=(0, 1),
            channels=("a",),
            fields=np.zeros((1, 1, 4, 3), dtype=np.float32),
        )
