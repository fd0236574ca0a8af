"""Flip single bits of a published run: the check names the object, a reader of a store never gets
a wrong number.

MOSAIC_OPS_TEST_FLIPS sets how many (default: one of each store and file, and 12 more; the campaign
is 500), MOSAIC_OPS_TEST_PUBLISHED a published root to flip a copy of, such as the demonstration's.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import StoreError
from mosaic_core.contract.schema import channels_to_dataset
from postprocess.catalog import update_catalog
from postprocess.objects.root import open_root
from postprocess.points import write_points
from postprocess.product_store import write_product
from postprocess.products.suite import ProductOptions, ProductSuite
from postprocess.publish import publish, read_pointer
from postprocess.read import open_published, read_published
from postprocess.store import ForecastWriter
from postprocess.verify import verify_store
from postprocess.viewer.atlas import write_atlas
from postprocess.viewer.site import write_viewer

FLIPS = int(os.environ.get("MOSAIC_OPS_TEST_FLIPS", "0"))
CYCLE = Cycle.parse("2026-11-23T00Z")
# What a reader makes of a file; where nothing is known of a format, its bytes.
READ: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".geojson": lambda path: json.loads(path.read_bytes()),
    ".csv": lambda path: pd.read_csv(path).to_dict(),
    ".parquet": lambda path: pd.read_parquet(path).to_dict(),
    ".nc": lambda path: xr.load_dataset(path, engine="netcdf4").to_dict(),
    ".png": lambda path: np.asarray(Image.open(path)).tobytes(),
    ".webp": lambda path: np.asarray(Image.open(path)).tobytes(),
}


def staged_run(folder: Path) -> Path:
    """Everything that a cycle publishes, of two members and a day."""
    spec = made_up.spec(members=2, leads=5)
    options = ProductOptions(enforce_health=False, statistics=("mean", "std"))
    with (
        ProductSuite(folder, options) as products,
        ForecastWriter(folder / "forecast.zarr", spec) as writer,
    ):
        for step in made_up.steps(spec):
            writer.write(step)
            products.update(step)
        products.finish(spec.attributes())
    write_points(folder / "forecast.zarr", folder / "points.zarr", spec)
    first = next(made_up.steps(spec)).fields[:1]
    state = channels_to_dataset(first, {"time": np.array([spec.init_time])})
    write_product(folder / "initial_state.zarr", state, spec.attributes())
    with xr.open_zarr(folder / "ensemble.zarr", chunks=None, decode_timedelta=True) as ensemble:
        write_atlas(ensemble, folder)
    (folder / "figures").mkdir()
    Image.new("RGB", (60, 40), "teal").save(folder / "figures" / "map.png")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rot")
    if given := os.environ.get("MOSAIC_OPS_TEST_PUBLISHED"):
        shutil.copytree(given, folder / "root", ignore=shutil.ignore_patterns(".aside", "scores"))
    else:
        publish(staged_run(folder / "staged"), folder / "root", cycle=CYCLE, run_id="run-1")
        shutil.rmtree(folder / "staged")
        write_viewer(open_root(folder / "root"))
    update_catalog(open_root(folder / "root"))
    return folder / "root"


def run_of(root: Path) -> Path:
    pointer = read_pointer(root)
    assert pointer is not None
    return root / pointer.path


def values(store: Path, names: set[str]) -> dict[str, np.ndarray]:
    """These arrays and all coordinates."""
    with xr.open_zarr(store, chunks=None, decode_timedelta=True) as dataset:
        return {
            str(name): dataset[name].values
            for name in dataset.variables
            if name in names or name in dataset.coords
        }


def same(found: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not any(isinstance(v, np.ndarray) for v in wanted.values()):
        return repr(found) == repr(wanted)
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype
        and np.array_equal(found[name], wanted[name], equal_nan=wanted[name].dtype.kind == "f")
        for name in wanted
    )


def plan(files: list[Path], chance: random.Random) -> list[Path]:
    """One object of each store and file of the run and of the root, then any of them."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        groups.setdefault(path.parts[: path.parts.index("root") + 5], []).append(path)
    firsts = [chance.choice(group) for group in groups.values()]
    roots = [path for path in files if path.parent.suffix == ".zarr"]
    return (firsts + roots + chance.choices(files, k=max(12, FLIPS)))[: FLIPS or None]


def reader_of(path: Path) -> tuple[str, Callable[[], Any]]:
    """What kind of object it is, and how a reader meets it."""
    store = next((folder for folder in path.parents if folder.suffix == ".zarr"), None)
    if store is None:
        return "file", lambda: READ.get(path.suffix, Path.read_bytes)(path)
    array = path.relative_to(store).parts[0]
    metadata = json.loads((store / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    names = {array} if array in metadata else set(metadata)
    kind = "metadata" if path.name == "zarr.json" else "data"
    return f"store, {kind}", lambda: values(store, names)


def outcome(read: Callable[[], Any], truth: Any) -> str:
    try:
        found = read()
    except Exception:  # noqa: BLE001  (any error at all is the right answer)
        return "error"
    return "same" if same(found, truth) else "DIFFERENT"


def test_any_flipped_bit_is_named_and_never_read_as_a_number(root: Path) -> None:
    chance, found = random.Random(3), Counter[str]()
    files = [
        path
        for path in root.rglob("*")
        if path.is_file() and ".aside" not in path.parts and path.stat().st_size
    ]
    assert verify_store(str(root)).faults == ()
    targets = plan(sorted(files), chance)
    stores = Counter(next((p.name for p in t.parents if p.suffix == ".zarr"), "") for t in targets)
    assert {path.name for path in run_of(root).glob("*.zarr")} <= stores.keys()
    for path in targets:
        kind, read = reader_of(path)
        truth, good = read(), path.read_bytes()
        position = chance.randrange(8 * len(good))
        bad = bytearray(good)
        bad[position // 8] ^= 1 << (position % 8)
        path.write_bytes(bad)
        key = path.relative_to(root).as_posix()
        try:
            assert key in {fault.key for fault in verify_store(str(root)).faults}
            found[f"{kind}: {outcome(read, truth)}"] += 1
            _guarded_reads_refuse(root, path)
        finally:
            path.write_bytes(good)
    assert verify_store(str(root)).faults == ()
    print(f"{len(targets)} flips, all named: {dict(sorted(found.items()))}; {dict(stores)}")
    assert found["store, data: DIFFERENT"] == 0
    assert found["store, data: error"] > 0


def _guarded_reads_refuse(root: Path, path: Path) -> None:
    """What has no checksum of its own is told by the reads that compare with the manifest."""
    if path.name == "zarr.json" and path.parent.suffix == ".zarr":
        with pytest.raises(StoreError, match=r"zarr\.json"):
            open_published(root, path.parent.name)
    run = path.parents[len(path.relative_to(root).parts) - 4] if "cycles" in path.parts else root
    if run != root and (run / "manifest.json").exists() and path.name != "manifest.json":
        with pytest.raises(StoreError, match="not what was published"):
            read_published(root, path.relative_to(run).as_posix())
