"""Every form of the track table is read back, by plain readers of the published formats."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.cyclones.adeck import adeck_text
from postprocess.products.cyclones.formats import geojson, ragged, read_tracks, write_tracks
from postprocess.products.cyclones.tracks import TRACK_COLUMNS, empty_tracks

INIT = pd.Timestamp("2026-09-01T00:00")


def tracks_of(*rows: tuple[str, str, int, int, float, float]) -> pd.DataFrame:
    """A table from (track, system, member, lead, latitude, longitude)."""
    table = pd.DataFrame(
        rows, columns=["track_id", "system_id", "number", "lead_hours", "latitude", "longitude"]
    )
    table["time"] = INIT + pd.to_timedelta(table.lead_hours, unit="h")
    table = table.assign(
        storm_id="", storm_name="", category="genesis", basin="north-west-pacific", init_time=INIT,
        mslp_pa=99_123.4, mslp_grid_pa=99_200.0, wind_max_ms=20.6, vorticity_850=1.2345e-4,
        wind_max_latitude=table.latitude + 1, wind_max_longitude=table.longitude, warm_core=True,
        closed_contour=True, tracker_version="1",
    )  # fmt: skip
    return table[list(TRACK_COLUMNS)].astype(dict(TRACK_COLUMNS))


@pytest.fixture
def table() -> pd.DataFrame:
    return tracks_of(
        ("00-000", "70W", 0, 0, 12.0, 178.0),
        ("00-000", "70W", 0, 6, 13.0, 179.5),
        ("00-000", "70W", 0, 12, 14.0, 181.5),
        ("01-000", "70W", 1, 0, 12.5, 178.4),
        ("01-000", "70W", 1, 6, 13.6, 179.9),
        ("01-001", "71S", 1, 24, -9.96, 77.25),
    )


def test_parquet_and_csv_come_back(table, tmp_path):
    write_tracks(table, tmp_path)
    pd.testing.assert_frame_equal(read_tracks(tmp_path / "tracks.parquet"), table)
    from_text = read_tracks(tmp_path / "tracks.csv")
    pd.testing.assert_frame_equal(from_text, table, rtol=1e-8)


def test_intensities_say_what_they_are(table, tmp_path):
    write_tracks(table, tmp_path)
    assert "1.5 degrees" in pd.read_parquet(tmp_path / "tracks.parquet").attrs["comment"]
    assert "1.5 degrees" in json.loads((tmp_path / "tracks.geojson").read_text())["note"]
    with xr.open_dataset(tmp_path / "tracks.nc", engine="netcdf4") as found:
        assert "1.5 degrees" in found.attrs["comment"]


def test_geojson_cuts_lines_at_the_antimeridian(table, tmp_path):
    write_tracks(table, tmp_path)
    document = json.loads((tmp_path / "tracks.geojson").read_text())
    lines = [f for f in document["features"] if f["geometry"]["type"] != "Point"]
    points = [f for f in document["features"] if f["geometry"]["type"] == "Point"]
    assert document["type"] == "FeatureCollection"
    assert len(points) == len(table)
    assert [f["geometry"]["type"] for f in lines] == ["MultiLineString", "LineString"]
    assert lines[0]["geometry"]["coordinates"] == [
        [[178.0, 12.0], [179.5, 13.0], [180.0, 13.25]],
        [[-180.0, 13.25], [-178.5, 14.0]],
    ]
    assert points[0]["properties"]["time"] == "2026-09-01T00:00:00Z"
    assert "1.5 degrees" in document["note"]


def test_westward_crossing_is_cut_too():
    line = geojson(
        tracks_of(("a", "70W", 0, 0, 10.0, 181.0), ("a", "70W", 0, 6, 12.0, 179.0))
    )["features"][0]  # fmt: skip
    assert line["geometry"]["coordinates"] == [
        [[-179.0, 10.0], [-180.0, 11.0]],
        [[180.0, 11.0], [179.0, 12.0]],
    ]


def test_netcdf_is_a_cf_contiguous_ragged_array(table, tmp_path):
    write_tracks(table, tmp_path)
    with xr.open_dataset(tmp_path / "tracks.nc", engine="netcdf4") as found:
        found.load()
    assert found.attrs["featureType"] == "trajectory"
    assert found.rowSize.attrs["sample_dimension"] == "obs"
    assert found.track_id.attrs["cf_role"] == "trajectory_id"
    assert found.rowSize.values.tolist() == [3, 2, 1]
    stops = np.cumsum(found.rowSize.values)
    for name, stop, count in zip(found.track_id.values, stops, found.rowSize.values, strict=True):
        own = table[table.track_id == name]
        np.testing.assert_allclose(found.lon[stop - count : stop], own.longitude)
        np.testing.assert_array_equal(found.time[stop - count : stop], own.time)


def read_adeck(text: str) -> pd.DataFrame:
    """A plain reader of a-decks by the published columns."""
    rows = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        signs = {"N": 1, "E": 1, "S": -1, "W": -1}
        rows.append({
            "basin": parts[0], "cyclone": int(parts[1]), "start": parts[2], "tech": parts[4],
            "tau": int(parts[5]), "latitude": int(parts[6][:-1]) / 10 * signs[parts[6][-1]],
            "longitude": int(parts[7][:-1]) / 10 * signs[parts[7][-1]], "vmax": int(parts[8]),
            "mslp": int(parts[9]), "type": parts[10], "columns": len(parts),
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_adeck_columns(table):
    found = read_adeck(adeck_text(table))
    members = found[found.tech != "MOMN"].reset_index(drop=True)
    assert members.tech.tolist() == ["MO00"] * 3 + ["MO01"] * 3
    assert members.basin.tolist() == ["WP"] * 5 + ["SH"]
    assert members.longitude.tolist() == [178.0, 179.5, -178.5, 178.4, 179.9, 77.2]
    assert members.latitude.iloc[-1] == -10.0
    assert set(found.vmax) == {40}
    assert set(found.mslp) == {991}
    assert set(found.start) == {"2026090100"}


def test_adeck_mean_needs_half_of_the_members(table):
    found = read_adeck(adeck_text(table))
    mean = found[found.tech == "MOMN"]
    assert mean.tau.tolist() == [0, 6, 12]
    assert mean.latitude.iloc[0] == pytest.approx(12.25, abs=0.051)
    lone = table[table.system_id == "71S"]
    assert "MOMN" not in adeck_text(lone)


def test_no_storm_gives_valid_empty_files(tmp_path):
    paths = write_tracks(empty_tracks(), tmp_path)
    assert all(path.exists() for path in paths)
    assert read_tracks(tmp_path / "tracks.csv").empty
    assert read_tracks(tmp_path / "tracks.parquet").empty
    assert json.loads((tmp_path / "tracks.geojson").read_text())["features"] == []
    with xr.open_dataset(tmp_path / "tracks.nc", engine="netcdf4") as found:
        assert found.sizes["trajectory"] == 0
        assert found.sizes["obs"] == 0
    assert (tmp_path / "tracks.dat").read_text() == ""


def test_tables_that_are_not_tracks_are_named(tmp_path):
    other = tmp_path / "tracks.csv"
    other.write_text("latitude,longitude\n1,2\n")
    with pytest.raises(DataError, match="track_id: missing"):
        read_tracks(other)
    with pytest.raises(InputError, match="no such file"):
        read_tracks(tmp_path / "absent.csv")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a table"):
        read_tracks(tmp_path / "cut.parquet")


def test_ragged_needs_no_order(table):
    shuffled = table.sample(frac=1, random_state=1)
    xr.testing.assert_identical(ragged(shuffled), ragged(table))
