"""Stores open where nothing but xarray and zarr is installed."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.factories import DemoFolder

ROOT = Path(__file__).resolve().parent.parent.parent

READ = """
import importlib.util
import sys
import numpy
import xarray

assert importlib.util.find_spec("mosaic_core") is None
assert importlib.util.find_spec("dask") is None
for address in sys.argv[1:]:
    store = xarray.open_zarr(address, chunks=None)
    for name, variable in store.data_vars.items():
        if variable.dtype.kind == "f":
            row = variable.isel(latitude=60, missing_dims="ignore")
            assert numpy.isfinite(row.values).all(), name
    print(address.rsplit("/", 1)[-1], len(store.data_vars), dict(store.sizes))
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with xarray and zarr only."""
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, *install, *constraints, "xarray", "zarr"], check=True)
    return python


@pytest.mark.e2e
def test_archive_forecast_and_products_open(finished: DemoFolder, reader: str) -> None:
    names = ("forecast", "ensemble", "spectra", "initial_state")
    stores = [finished.data / "analyses.zarr", *(finished.run / f"{name}.zarr" for name in names)]
    done = subprocess.run(
        [reader, "-I", "-c", READ, *map(str, stores)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "analyses.zarr",
        *(f"{name}.zarr" for name in names),
    ]
    assert sys.executable != reader
