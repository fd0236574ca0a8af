"""ECMWF's track messages: every row equal to the ecCodes decode, damage named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.cyclones.ecmwf_bufr import (
    ECMWF_COLUMNS,
    known_storms,
    read_ecmwf_tracks,
)

DATA = Path(__file__).parents[2] / "data"
BUFR = DATA / "ecmwf_ens_tropical_cyclone.bufr"
CYCLE = Cycle.parse("2015111800")


def test_every_row_equals_the_csv():
    found = read_ecmwf_tracks(BUFR, CYCLE)
    expected = pd.read_csv(DATA / "ecmwf_ens_tropical_cyclone_20151118.csv")
    assert len(found) == len(expected) == 2721
    pairs = {"storm_id": "storm_id", "storm_name": "storm_name", "number": "member",
             "lead_hours": "step_h"}  # fmt: skip
    keys = ["storm_id", "lead_hours", "number"]
    mine = found.sort_values(keys).reset_index(drop=True)
    theirs = expected.sort_values(["storm_id", "step_h", "member"]).reset_index(drop=True)
    for own, other in pairs.items():
        assert (mine[own] == theirs[other]).all()
    floats = {"latitude": "lat", "longitude": "lon", "mslp_pa": "mslp_pa",
              "wind_max_ms": "vmax10_ms", "wind_max_latitude": "vmax_lat",
              "wind_max_longitude": "vmax_lon"}  # fmt: skip
    for own, other in floats.items():
        np.testing.assert_allclose(mine[own], theirs[other], atol=1e-6)
    assert (mine.init_time == CYCLE.init_time).all()
    assert list(found.columns) == list(ECMWF_COLUMNS)


def test_only_storms_with_an_agencys_number_are_known():
    storms = known_storms(BUFR, CYCLE)
    assert [(storm.storm_id, storm.name) for storm in storms] == [("27W", "IN-FA")]
    assert storms[0].latitude == pytest.approx(5.5)


def test_absent_truncated_empty_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="no track file"):
        read_ecmwf_tracks(tmp_path / "absent.bufr")
    cut = tmp_path / "cut.bufr"
    cut.write_bytes(BUFR.read_bytes()[:-5000])
    with pytest.raises(DataError, match="not a whole BUFR file"):
        read_ecmwf_tracks(cut)
    text = tmp_path / "text.bufr"
    text.write_text("<html>404</html>")
    with pytest.raises(DataError, match="no BUFR message"):
        read_ecmwf_tracks(text)
    with pytest.raises(DataError, match="of cycle 2015-11-18T00Z, not of 2015-11-18T12Z"):
        read_ecmwf_tracks(BUFR, CYCLE.shift(12))
