"""An independent implementation of Zarr v3 reads the same numbers."""

from __future__ import annotations

from pathlib import Path

import made_up
import numpy as np
import tensorstore
import xarray as xr

from postprocess.store import ForecastWriter


def test_tensorstore_reads_the_same(tmp_path: Path) -> None:
    path, spec = tmp_path / "forecast.zarr", made_up.spec(members=1, leads=2)
    with ForecastWriter(path, spec) as writer:
        for step in made_up.steps(spec):
            writer.write(step)
    with xr.open_zarr(path, chunks=None, decode_times=False) as dataset:
        for name in ("geopotential", "2m_temperature", "latitude", "level", "valid_time"):
            kvstore = {"driver": "file", "path": f"{path / name}/"}
            array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
            assert np.array_equal(array.read().result(), dataset[name].values)
