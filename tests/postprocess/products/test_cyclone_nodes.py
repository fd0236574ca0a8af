"""Nodes: equal to DetectNodes on real fields, and to a plain reading of its rules on hard ones."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mosaic_core.contract.errors import DataError, InputError
from postprocess.products.cyclones.files import ContourRequest, nodes_table
from postprocess.products.cyclones.nodes import Contour, Mesh, find_nodes, local_minima

DATA = Path(__file__).parents[2] / "data"


class PlainDetector:
    """The rules of DetectNodes for one field, point by point with queues: slow and obvious."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.rows, self.columns = mesh.shape

    def neighbours(self, point):
        row, column = point
        if row > 0:
            yield row - 1, column
        if row < self.rows - 1:
            yield row + 1, column
        if self.mesh.periodic or 0 < column < self.columns - 1:
            yield row, (column + 1) % self.columns
            yield row, (column - 1) % self.columns

    def arc(self, a, b):
        (lat_a, lon_a), (lat_b, lon_b) = (
            [value * (math.pi / 180) for value in (self.mesh.latitude[r], self.mesh.longitude[c])]
            for r, c in (a, b)
        )
        cosine = math.sin(lat_a) * math.sin(lat_b)
        cosine += math.cos(lat_a) * math.cos(lat_b) * math.cos(lon_b - lon_a)
        return 0.0 if cosine >= 1 else 180 / math.pi * math.acos(max(cosine, -1.0))

    def reachable(self, start, allowed):
        queue, seen = deque([start]), []
        while queue:
            point = queue.popleft()
            if point in seen or not allowed(point):
                continue
            seen.append(point)
            queue.extend(self.neighbours(point))
        return seen

    def extremum(self, field, start, distance, sign):
        found = self.reachable(start, lambda point: self.arc(start, point) <= distance)
        best = start
        for point in found:
            if sign * field[point] < sign * field[best]:
                best = point
        return best

    def closes(self, field, start, delta, distance, search):
        sign = 1 if delta > 0 else -1
        centre = self.extremum(field, start, search, sign) if search else start
        queue, seen = deque([centre]), set()
        while queue:
            point = queue.popleft()
            if point in seen:
                continue
            seen.add(point)
            if self.arc(centre, point) > distance:
                return False
            if sign * (field[point] - field[centre]) >= abs(delta):
                continue
            queue.extend(self.neighbours(point))
        return True

    def nodes(self, field, contours, merge_distance, max_abs_latitude):
        found = [
            (r, c)
            for r in range(self.rows)
            for c in range(self.columns)
            if all(field[n] >= field[r, c] for n in self.neighbours((r, c)))
            and abs(self.mesh.latitude[r]) <= max_abs_latitude
        ]
        if merge_distance:
            found = [
                a
                for a in found
                if not any(field[b] < field[a] and self.arc(a, b) <= merge_distance for b in found)
            ]
        for other, delta, distance, search in contours:
            found = [p for p in found if self.closes(other, p, delta, distance, search)]
        return found


def smooth_noise(rng, shape, passes=2):
    field = rng.standard_normal(shape)
    for _ in range(passes):
        field = field + np.roll(field, 1, 1) + np.roll(field, -1, 1)
        field[1:-1] = field[1:-1] + field[:-2] + field[2:]
    return field


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("periodic", [True, False])
def test_equals_the_plain_reading_of_the_rules(seed, periodic):
    rng = np.random.default_rng(seed)
    mesh = Mesh(tuple(np.linspace(-90, 90, 37)), tuple(np.arange(72) * 5.0), periodic)
    # Few distinct values make plateaus and ties.
    msl = np.round(smooth_noise(rng, mesh.shape) * 3).astype(np.float32)
    core = np.round(smooth_noise(rng, mesh.shape) * 4).astype(np.float32)
    requests = [(msl, 5.0, 16.0, 0.0), (core, -3.0, 18.0, 10.0)]
    contours = [Contour(f[None], d, near, search) for f, d, near, search in requests]
    found = find_nodes(msl[None], mesh, contours, merge_distance=12.0, max_abs_latitude=85.0)
    expected = PlainDetector(mesh).nodes(msl, requests, 12.0, 85.0)
    assert list(zip(found.row.tolist(), found.column.tolist(), strict=True)) == expected
    assert len(local_minima(msl[None], mesh)) > len(expected) > 0


def test_pole_rows_and_wide_circles_equal_the_plain_reading():
    mesh = Mesh(tuple(np.linspace(90, -90, 19)), tuple(np.arange(24) * 15.0))
    rng = np.random.default_rng(7)
    field = smooth_noise(rng, mesh.shape, 1).astype(np.float32)
    for distance in (12.0, 35.0, 80.0, 150.0):
        requests = [(field, 2.0, distance, 0.0)]
        found = find_nodes(field[None], mesh, [Contour(field[None], 2.0, distance)])
        expected = PlainDetector(mesh).nodes(field, requests, 0.0, 90.0)
        assert list(zip(found.row.tolist(), found.column.tolist(), strict=True)) == expected


def test_every_node_of_tempest_extremes_on_real_fields():
    with xr.open_dataset(DATA / "era5_msl_2p5_20251201_40steps.nc", engine="netcdf4") as era5:
        found = nodes_table(era5, [ContourRequest.parse("msl,200,5.5,0")])
    expected = pd.read_csv(DATA / "te_detectnodes_era5_msl_2p5.csv")
    keys = ["time_index", "longitude", "latitude"]
    assert len(found) == 1377
    np.testing.assert_array_equal(found[keys].to_numpy(), expected[keys].to_numpy())
    np.testing.assert_allclose(found["value"], expected["msl_pa"], atol=0.051)


@pytest.fixture(scope="module")
def quarter_degree() -> xr.Dataset:
    with xr.open_dataset(DATA / "era5_msl_2025120100_0p25.nc", engine="netcdf4") as era5:
        return era5.load()


def has_node(table: pd.DataFrame, latitude: float, longitude: float, within: float) -> bool:
    near = (table.latitude - latitude).abs() <= within
    return bool((near & ((table.longitude - longitude).abs() <= within)).any())


def test_koto_and_ditwah_in_the_quarter_degree_field(quarter_degree):
    table = nodes_table(
        quarter_degree, [ContourRequest.parse("msl,200,5.5,0")], max_abs_latitude=30
    )
    assert has_node(table, 14.75, 111.75, 0.01)
    assert has_node(table, 12.75, 81.25, 0.01)


def test_koto_and_ditwah_in_the_regrid():
    golden = np.load(DATA / "golden_regrid_1p5deg_lonlat.npz")
    regridded = xr.Dataset(
        {"msl": (("longitude", "latitude"), golden["msl_era5_cdo"])},
        coords={name: golden[name] for name in ("longitude", "latitude")},
    )
    table = nodes_table(regridded, [ContourRequest("msl", 200, 5.5)], max_abs_latitude=30)
    assert has_node(table, 14.75, 111.75, 1.5)
    assert has_node(table, 12.75, 81.25, 1.5)


@pytest.fixture(scope="module")
def era5_week() -> xr.Dataset:
    with xr.open_dataset(DATA / "era5_msl_2p5_20251201_40steps.nc", engine="netcdf4") as era5:
        return era5.isel(time=slice(0, 6)).load()


REQUEST = (ContourRequest("msl", 200, 5.5),)


def as_set(table: pd.DataFrame) -> set[tuple[float, ...]]:
    return set(map(tuple, table[["time_index", "longitude", "latitude", "value"]].to_numpy()))


def test_nodes_do_not_depend_on_how_the_field_is_stored(era5_week):
    expected = as_set(nodes_table(era5_week, REQUEST))
    for twin in (
        era5_week.isel(lat=slice(None, None, -1)),
        era5_week.transpose("lon", "lat", "time"),
        era5_week.roll(lon=29, roll_coords=True),
        era5_week.astype(np.float64),
        era5_week.rename(lat="latitude", lon="longitude"),
    ):
        assert as_set(nodes_table(twin, REQUEST)) == expected


def test_mirrored_world_has_mirrored_nodes(era5_week):
    mirrored = era5_week.isel(lat=slice(None, None, -1)).assign_coords(lat=era5_week.lat.values)
    expected = {(t, lon, -lat, v) for t, lon, lat, v in as_set(nodes_table(era5_week, REQUEST))}
    assert as_set(nodes_table(mirrored, REQUEST)) == expected


def test_merging_keeps_the_deeper_node(era5_week):
    every = nodes_table(era5_week, REQUEST)
    few = nodes_table(era5_week, REQUEST, merge_distance=10.0)
    assert 0 < len(few) < len(every)
    assert as_set(few) <= as_set(every)


def test_maxima_of_the_negative_are_the_minima(era5_week):
    negative = -era5_week
    found = nodes_table(negative, [ContourRequest("msl", -200, 5.5)], maxima=True)
    found["value"] = -found["value"]
    assert as_set(found) == as_set(nodes_table(era5_week, REQUEST))


def test_levels_and_differences_by_name():
    latitude, longitude = np.linspace(-90, 90, 61), np.arange(120) * 3.0
    away = np.hypot(latitude[:, None] - 15, longitude[None, :] - 150)
    bump = np.exp(-((away / 6) ** 2))
    z = np.stack([90_000 + 500 * bump, 55_000 - 100 * bump])
    weather = xr.Dataset(
        {
            "msl": (("latitude", "longitude"), 101_000 - 2000 * bump),
            "z": (("level", "latitude", "longitude"), z),
        },
        coords={"level": [300, 500], "latitude": latitude, "longitude": longitude},
    )
    core = ContourRequest.parse("_DIFF(z(300hPa),z(500hPa)),-58.8,12,3")
    found = nodes_table(weather, [ContourRequest("msl", 200, 12), core])
    assert found[["longitude", "latitude"]].to_numpy().tolist() == [[150.0, 15.0]]
    cold = ContourRequest.parse("_DIFF(z(500hPa),z(300hPa)),-58.8,12,3")
    assert nodes_table(weather, [ContourRequest("msl", 200, 12), cold]).empty
    with pytest.raises(InputError, match="no level 700 hPa"):
        nodes_table(weather, [ContourRequest("z(700)", 200, 12)])


def test_no_node_is_an_empty_table(era5_week):
    flat = xr.zeros_like(era5_week) + era5_week.lat.astype(np.float32)
    table = nodes_table(flat, [ContourRequest("msl", 200, 5.5)], max_abs_latitude=80)
    assert table.empty
    assert list(table.columns) == ["time_index", "longitude", "latitude", "value"]


@pytest.mark.parametrize("text", ["msl", "msl,200", "msl,a,5", "msl,1,2,3,4"])
def test_unreadable_contours(text):
    with pytest.raises(InputError, match="cannot read the closed contour"):
        ContourRequest.parse(text)


def test_bad_input_is_named(era5_week):
    with pytest.raises(InputError, match="no variable 'pressure'"):
        nodes_table(era5_week, [ContourRequest("pressure", 200, 5.5)])
    with pytest.raises(InputError, match="delta"):
        nodes_table(era5_week, [ContourRequest("msl", 0, 5.5)])
    with pytest.raises(DataError, match="not one whole circle"):
        nodes_table(era5_week.isel(lon=slice(0, 50)), REQUEST)
    assert len(nodes_table(era5_week.isel(lon=slice(0, 50)), REQUEST, regional=True))
    with pytest.raises(InputError, match="at most time"):
        nodes_table(era5_week.expand_dims(number=[0, 1]), REQUEST)
