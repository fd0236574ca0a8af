"""Flip single bits of a published run: the check names the object, a reader never gets a wrong
number.

MOSAIC_OPS_TEST_FLIPS sets how many (default 15; the campaign is 500).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import made_up
import numpy as np
import pytest
import xarray as xr

from mosaic_core.contract.cycle import Cycle
from postprocess.points import write_points
from postprocess.product_store import write_product
from postprocess.products.growing_store import GrowingStore, MapArray
from postprocess.publish import publish, read_pointer
from postprocess.read import open_published
from postprocess.store import ForecastWriter
from postprocess.verify import verify_store

FLIPS = int(os.environ.get("MOSAIC_OPS_TEST_FLIPS", "15"))
CYCLE = Cycle.parse("2026-11-23T00Z")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rot")
    staged, spec = folder / "staged", made_up.spec(members=1, leads=2)
    with ForecastWriter(staged / "forecast.zarr", spec) as writer:
        for step in made_up.steps(spec):
            writer.write(step)
    write_points(staged / "forecast.zarr", staged / "points.zarr", spec)
    with xr.open_zarr(staged / "points.zarr", chunks=None) as points:
        mean = points[["2m_temperature"]].isel(init_time=0).mean("number").astype("float32")
    series, fields = GrowingStore(staged / "ensemble.zarr"), mean["2m_temperature"]
    for field in fields.transpose("lead_time", "latitude", "longitude").values:
        series.append("2m_temperature", np.ascontiguousarray(field))
    shape = {dim: fields.sizes[dim] for dim in ("latitude", "longitude")}
    maps = {"2m_temperature": MapArray(shape, fields.attrs)}
    series.finish(maps, mean.drop_vars("2m_temperature"), spec.attributes())
    stations = mean.isel(latitude=[40, 80], longitude=7).assign_coords(
        station=("latitude", ["Reykjavík", "Nadi"])
    )
    write_product(staged / "meteograms.zarr", stations, spec.attributes())
    publish(staged, folder / "root", cycle=CYCLE, run_id="run-1")
    return folder / "root"


def stores(root: Path) -> dict[str, xr.Dataset]:
    pointer = read_pointer(root)
    assert pointer is not None
    return {path.name: path for path in sorted((root / pointer.path).glob("*.zarr"))}


def values(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Every array that `names` touches, and all coordinates."""
    with xr.open_zarr(path, chunks=None) as dataset:
        return {
            str(name): dataset[name].values
            for name in dataset.variables
            if name in names or name in dataset.coords
        }


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype
        and np.array_equal(found[name], wanted[name], equal_nan=wanted[name].dtype.kind == "f")
        for name in wanted
    )


def outcome(root: Path, path: Path, truth: dict[str, dict[str, np.ndarray]]) -> str:
    """What a plain xarray reader makes of the damaged object."""
    store = next((part for part in path.parts if part.endswith(".zarr")), "")
    if not store:
        return "no data object"
    folder = stores(root)[store]
    array = path.relative_to(folder).parts[0]
    names = {array} if array in truth[store] else {"2m_temperature"}
    wanted = {k: v for k, v in truth[store].items() if k in names | COORDINATES}
    try:
        found = values(folder, names)
    except Exception:  # noqa: BLE001  (any error at all is the right answer)
        return "error"
    kind = "metadata" if path.name == "zarr.json" else "data"
    return f"same numbers, {kind}" if same(found, wanted) else f"WRONG NUMBER, {kind}"


COORDINATES = {
    "init_time", "number", "lead_time", "valid_time", "level", "latitude", "longitude",
    "quantization_info", "station",
}  # fmt: skip


def test_any_flipped_bit_is_named_and_never_read_as_a_number(root: Path) -> None:
    truth = {name: values(path, set(xr.open_zarr(path).variables)) for name, path in
             stores(root).items()}  # fmt: skip
    files = sorted(
        path for path in root.rglob("*") if path.is_file() and ".aside" not in path.parts
    )
    chance, found = random.Random(3), Counter()
    assert verify_store(str(root)).faults == ()
    for _ in range(FLIPS):
        path = chance.choice(files)
        good = path.read_bytes()
        position = chance.randrange(8 * len(good))
        bad = bytearray(good)
        bad[position // 8] ^= 1 << (position % 8)
        path.write_bytes(bad)
        key = path.relative_to(root).as_posix()
        try:
            assert key in {fault.key for fault in verify_store(str(root)).faults}
            found[outcome(root, path, truth)] += 1
            if path.name == "zarr.json" and path.parent.suffix == ".zarr":
                with pytest.raises(Exception, match=r"zarr\.json"):
                    open_published(root, path.parent.name)
        finally:
            path.write_bytes(good)
    assert verify_store(str(root)).faults == ()
    print(f"{FLIPS} flips, all named: {dict(found)}")
    assert found["WRONG NUMBER, data"] == 0
    assert found["error"] > 0
