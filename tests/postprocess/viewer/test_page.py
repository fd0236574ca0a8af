"""Pictures give back the values they were made of; the page's files are what the code makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.objects.root import open_root
from postprocess.viewer.atlas import as_grey, write_atlas
from postprocess.viewer.serve import serving
from postprocess.viewer.site import page_files, site, write_viewer
from postprocess.viewer.world import world


def ensemble() -> xr.Dataset:
    """Two leads of pressure and of one level of geopotential; one point is missing."""
    generator = np.random.default_rng(0)
    pressure = generator.normal(101_000, 1500, (2, 121, 240)).astype(np.float32)
    pressure[1, 3, 5] = np.nan
    height = generator.normal(54_000, 2000, (2, 1, 121, 240)).astype(np.float32)
    flat = ("lead_time", "latitude", "longitude")
    return xr.Dataset(
        {
            "mean_sea_level_pressure_mean": (flat, pressure, {"units": "Pa"}),
            "mean_sea_level_pressure_std": (flat, np.ones_like(pressure), {"units": "Pa"}),
            "geopotential_mean": (("lead_time", "level", *flat[1:]), height, {"units": "m2 s-2"}),
        },
        {
            "lead_time": np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"),
            "level": [500],
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
        },
    )


def test_values_come_back_from_the_pictures(tmp_path: Path) -> None:
    made = ensemble()
    write_atlas(made, tmp_path)
    atlas = json.loads((tmp_path / "atlas" / "atlas.json").read_text())
    assert atlas["lead_hours"] == [0, 6]
    pressure, spread, height = atlas["fields"]
    assert (pressure["units"], height["level_hpa"], spread["statistic"]) == ("Pa", 500, "std")
    grey = np.asarray(Image.open(tmp_path / "atlas" / pressure["file"]))[..., 0]
    assert grey.shape == (2 * 121, 240)
    leads = grey.reshape(2, 121, 240)[:, ::-1]  # rows run from the north
    back = pressure["offset"] + pressure["scale"] * leads
    truth = made["mean_sea_level_pressure_mean"].values
    missing = np.isnan(truth)
    assert (leads == 0).sum() == missing.sum() == 1
    assert abs(back - truth)[~missing].max() <= 0.51 * pressure["scale"]


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e5), st.integers(1, 400))
def test_any_range_fits(low: float, span: float, count: int) -> None:
    values = np.linspace(low, low + span, count)
    grey, offset, scale = as_grey(values)
    assert grey.min() >= 1
    error = abs(offset + scale * grey.astype(float) - values).max()
    assert error <= 0.5001 * scale + 1e-9 * abs(low)


def test_nothing_but_missing_values_is_all_missing() -> None:
    grey, _, scale = as_grey(np.full((2, 3), np.nan))
    assert (grey == 0).all()
    assert scale > 0


def test_the_page_is_written_once_and_again_when_it_changed(tmp_path: Path) -> None:
    root = open_root(tmp_path)
    written = write_viewer(root)
    assert written == [*site(), "viewer/files.json"]
    assert {"index.html", "viewer/viewer.js"} < set(written)
    assert {record.key for record in page_files(root)} == set(site())
    assert write_viewer(root) == []
    root.write("viewer/viewer.js", b"old", cache="no-cache")
    assert write_viewer(root) == ["viewer/viewer.js"]


def test_coastlines_and_colours_are_those_of_the_figures() -> None:
    assert site()["viewer/world.json"].decode() == world()


def test_a_folder_without_publications_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is published"), serving(tmp_path):
        pass
