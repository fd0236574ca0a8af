"""The storms of a cycle: from a mirror to the names of published tracks, or a record of why not."""

from __future__ import annotations

from pathlib import Path

import eccodes
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.storms import recorded_attributes, storm_attributes, storms_in
from ingest.sources import Source
from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.mirror import Mirror
from ingest.tropical_tracks import tracks_url
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.product_store import write_product
from postprocess.products.suite import ProductOptions, ProductSuite

BUFR = Path(__file__).parents[1] / "data" / "ecmwf_ens_tropical_cyclone.bufr"
CYCLE = Cycle.parse("2026-08-20T00Z")


def tracks_of(cycle: Cycle, latitude: float, longitude: float) -> bytes:
    """The real file's first storm (27W IN-FA), moved to another time and place."""
    with BUFR.open("rb") as file:
        handle = eccodes.codes_bufr_new_from_file(file)
    eccodes.codes_set(handle, "unpack", 1)
    moment = cycle.datetime
    for name in ("year", "month", "day", "hour"):
        eccodes.codes_set(handle, name, getattr(moment, name))
    eccodes.codes_set(handle, "#1#latitude", latitude)
    eccodes.codes_set(handle, "#1#longitude", longitude)
    eccodes.codes_set(handle, "pack", 1)
    message: bytes = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return message


def analysis(cycle: Cycle) -> np.ndarray:
    return Atmosphere.model(5).fields(cycle.init_time)


def tracked(folder: Path, storms: tuple = ()) -> pd.DataFrame:
    """Published tracks of two members that start from the analysis of CYCLE."""
    folder.mkdir()
    fields = np.stack([analysis(CYCLE), analysis(CYCLE)])
    options = ProductOptions(only=("cyclones",), known_storms=storms, enforce_health=False)
    with ProductSuite(folder, options) as suite:
        suite.update(
            ForecastStep(CYCLE.init_time, 0, np.timedelta64(0, "ns"), (0, 1), CHANNEL_NAMES, fields)
        )
        suite.finish({})
    return pd.read_csv(folder / "tracks.csv", keep_default_na=False)


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "mirror").mkdir()
    with Mirror(tmp_path / "mirror") as server:
        yield Source("made-up", server.url)


def offer(tmp_path: Path, source: Source, content: bytes) -> None:
    file = tmp_path / "mirror" / tracks_url(CYCLE, source).removeprefix(f"{source.root}/")
    file.parent.mkdir(parents=True)
    file.write_bytes(content)


def test_a_storm_keeps_its_official_name_in_the_published_tracks(tmp_path, mirror):
    nameless = tracked(tmp_path / "before")
    assert set(nameless.storm_name) == {""}
    first = nameless.iloc[0]
    east = (first.longitude + 180) % 360 - 180
    offer(tmp_path, mirror, tracks_of(CYCLE, round(first.latitude, 1), round(east, 1)))
    said: list[str] = []
    found = storm_attributes(CYCLE, [mirror], tmp_path / "downloads", said.append)
    assert said == [f"storms of {CYCLE}: 27W"]
    assert "from made-up sha256" in found["known_storms_origin"]
    table = tracked(tmp_path / "after", storms_in(found))
    named = table[table.storm_name == "IN-FA"]
    assert sorted(named.number) == [0, 1]
    assert set(named.system_id) == {"27W"}
    assert np.allclose(named.latitude, first.latitude)
    assert (table[table.storm_name == ""].system_id.str[0].astype(int) >= 7).all()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "not there"),
        (b"<html>", "no whole BUFR"),
        (tracks_of(CYCLE, 10.0, 140.0)[:-100] + b"7777", "not a whole BUFR"),
        (tracks_of(CYCLE.shift(-12), 10.0, 140.0), "are of cycle 2026-08-19T12Z"),
    ],
)
def test_absence_is_recorded_and_never_fails_the_cycle(tmp_path, mirror, content, why):
    if content is not None:
        offer(tmp_path, mirror, content)
    said: list[str] = []
    found = storm_attributes(CYCLE, [mirror], tmp_path / "downloads", said.append)
    assert storms_in(found) == ()
    assert found["known_storms_origin"].startswith("no tf file: genesis ids only (made-up: ")
    assert why in found["known_storms_origin"]
    assert said == [f"storms of {CYCLE}: {found['known_storms_origin']}"]


def test_a_second_mirror_is_asked(tmp_path, mirror):
    offer(tmp_path, mirror, tracks_of(CYCLE, 10.0, 140.0))
    (tmp_path / "empty").mkdir()
    with Mirror(tmp_path / "empty") as other:
        sources = [Source("empty", other.url), mirror]
        found = storm_attributes(CYCLE, sources, tmp_path / "downloads", lambda _: None)
    assert [storm.name for storm in storms_in(found)] == ["IN-FA"]


def test_a_stored_state_keeps_what_was_found(tmp_path):
    path = tmp_path / "initial_state.zarr"
    assert recorded_attributes(path) is None
    write_product(path, xr.Dataset({"a": ("x", [1.0])}), {"title": "state"})
    assert recorded_attributes(path) is None
    attributes = {"known_storms": "[]", "known_storms_origin": "no tf file"}
    write_product(path, xr.Dataset({"a": ("x", [1.0])}, attrs=attributes), {"title": "state"})
    assert recorded_attributes(path) == attributes


def test_a_damaged_list_is_named():
    with pytest.raises(DataError, match="not a list of storms"):
        storms_in({"known_storms": '[{"id": 1}]'})
