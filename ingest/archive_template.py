"""The archive's metadata as a reviewed file, and the command that regenerates it.

`python -m ingest.archive_template` rewrites `archive_template.json`: the root `zarr.json` of an
archive without a time, with the metadata of every array consolidated in it.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.codecs import BloscCodec

from ingest.sources import ATTRIBUTION
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.schema import channels_to_dataset
from mosaic_core.contract.variables import CHANNELS, VARIABLES

TEMPLATE = Path(__file__).with_suffix(".json")
# One chunk of `time` and `provenance` covers a year of cycles, so that opening reads few files.
TIMES_PER_COORDINATE_CHUNK = 1464
GROWING_COORDINATES = ("time", "provenance")

Metadata = dict[str, Any]


@cache
def _template_text() -> str:
    return TEMPLATE.read_text()


def template() -> Metadata:
    """The reviewed metadata, a fresh copy."""
    return json.loads(_template_text())


def generate() -> Metadata:
    """The metadata that xarray and zarr write for an archive, with no time in it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "archive.zarr"
        dataset = _sample()
        dataset.to_zarr(store, zarr_format=3, consolidated=False, encoding=_encoding(dataset))
        root = json.loads((store / "zarr.json").read_text())
        arrays = {
            str(name): json.loads((store / str(name) / "zarr.json").read_text())
            for name in sorted(map(str, dataset.variables))
        }
    for array in arrays.values():
        if "time" in array["dimension_names"]:
            array["shape"][0] = 0
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return {**root, "consolidated_metadata": consolidated}


def _sample() -> xr.Dataset:
    planes = np.zeros((1, len(CHANNELS), LATITUDE.size, LONGITUDE.size), np.float32)
    dataset = channels_to_dataset(planes, {"time": [np.datetime64("2000-01-01", "ns")]})
    record = np.array(["{}"], dtype=object)
    attributes = {"long_name": "where each analysis came from and how it was checked (JSON)"}
    dataset = dataset.assign_coords(provenance=("time", record, attributes))
    return dataset.assign_attrs(
        {
            "Conventions": "CF-1.11",
            "title": "Analyses on 1.5 degrees, first-order conservative, for the Mosaic model",
            "comment": "Times stand in the order of their arrival: sortby('time') before slicing.",
            "license": ATTRIBUTION,
        }
    )


def _encoding(dataset: xr.Dataset) -> dict[str, Metadata]:
    # Byte-shuffled zstd halves these fields at a negligible cost of time.
    compressor = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)
    fields = {
        variable.name: {
            "chunks": (1, *dataset[variable.name].shape[1:]),
            "compressors": (compressor,),
        }
        for variable in VARIABLES
    }
    growing: dict[str, Metadata] = {
        name: {"chunks": (TIMES_PER_COORDINATE_CHUNK,)} for name in GROWING_COORDINATES
    }
    growing["time"] |= {
        "dtype": "int64",
        "units": "hours since 1970-01-01",
        "calendar": "proleptic_gregorian",
    }
    axes = {name: {"_FillValue": None} for name in ("level", "latitude", "longitude")}
    return {**fields, **growing, **axes}


def render(metadata: Metadata) -> str:
    """The text of the template file."""
    return json.dumps(metadata, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TEMPLATE.write_text(render(generate()))
