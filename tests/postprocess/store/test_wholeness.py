from __future__ import annotations

import json
from pathlib import Path

import made_up
import pytest

from mosaic_core.contract.errors import StoreError
from postprocess.store import ForecastWriter
from postprocess.wholeness import require_whole


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with ForecastWriter(tmp_path / "f.zarr", made_up.spec()) as writer:
        for step in made_up.steps(made_up.spec()):
            writer.write(step)
    return tmp_path / "f.zarr"


def require(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_bytes())
    require_whole(store, document["consolidated_metadata"]["metadata"])


def test_a_finished_store_is_whole(store: Path) -> None:
    require(store)


@pytest.mark.parametrize("name", ["temperature/c.0.1.0.4.0.0", "lead_time/c.0"])
def test_a_lost_object_is_named(store: Path, name: str) -> None:
    (store / name).unlink()
    with pytest.raises(StoreError, match=name):
        require(store)


def test_a_shard_that_was_cut_is_named(store: Path) -> None:
    shard = store / "temperature/c.0.1.0.4.0.0"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(StoreError, match="checksum does not fit"):
        require(store)
