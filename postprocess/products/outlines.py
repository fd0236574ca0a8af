"""The reviewed structure of the product stores: every array's dims, type and meaning.

`postprocess/templates/products.json` is what the default products of any forecast look like; sizes
and packing are left out. Settings may add arrays (another event) or leave some out; what an array
of a known name is may not change without a review.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNEL_NAMES, CHANNELS
from postprocess.layout import Document
from postprocess.products.suite import ProductOptions, ProductSuite
from postprocess.structure import PRODUCTS, checked_in, differences, outline

_LEADS = 5
"""A day at 6 h: the first window of the exceedance probabilities."""


def made_outlines() -> dict[str, Document]:
    """The outline of each product store, by making all products of a short featureless forecast."""
    with TemporaryDirectory() as folder:
        with ProductSuite(
            Path(folder), ProductOptions(enforce_health=False, reviewed=False)
        ) as suite:
            for step in range(_LEADS):
                suite.update(_step(step))
            written = suite.finish({})
        stores = sorted(path for path in written if path.suffix == ".zarr")
        return {path.stem: outline(json.loads((path / "zarr.json").read_text())) for path in stores}


def outline_faults() -> list[str]:
    """Every way in which the checked-in outlines differ from what the code makes."""
    return [
        f"{PRODUCTS}.json {fault}"
        for fault in differences(json.loads(checked_in(PRODUCTS)), made_outlines())
    ]


def _step(step: int) -> ForecastStep:
    """Two members, each channel a long wave around the middle of its bounds."""
    middles = np.array([(channel.minimum + channel.maximum) / 2 for channel in CHANNELS])
    wave = np.cos(np.deg2rad(LATITUDE))[:, None] * np.cos(np.deg2rad(2 * LONGITUDE + step))
    members = np.stack([wave, 1.1 * wave])[:, None]
    fields = middles[:, None, None] * (1 + 1e-3 * members)
    return ForecastStep(
        np.datetime64("2026-01-01T00", "ns"),
        step,
        np.timedelta64(6 * step, "h").astype("timedelta64[ns]"),
        (0, 1),
        CHANNEL_NAMES,
        fields.astype(np.float32),
    )
