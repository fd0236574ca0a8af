from __future__ import annotations

from pathlib import Path

import healpy
import numpy as np
import pytest
import torch
from torch import Tensor

from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.model.config import ModelConfig, builtin_config, read_config
from mosaic_core.model.mesh import (
    Geometry,
    build_geometry,
    find_neighbors,
    grid_radians,
    healpix_radians,
    standardize,
    unit_vectors,
)
from mosaic_core.model.parameters import published_tables

CASES = ["micro-hres", "micro-era5"]


def case_geometry(golden: Path, case: str) -> tuple[Geometry, dict[str, np.ndarray]]:
    arrays = dict(np.load(golden / f"{case}.npz"))
    config = read_config(golden / f"{case}.json")
    grid = arrays["longitude"], arrays["latitude"], arrays["static"]
    return build_geometry(config, *grid), arrays


def named_tables(geometry: Geometry) -> dict[str, Tensor]:
    tables = published_tables(geometry)
    for stage, rotation in enumerate(geometry.rotations[:-1]):
        assert rotation is not None
        prefix = f"encoder_stages.{stage}.blocks.0.attention.q_rope"
        tables |= {f"{prefix}.cos_freqs": rotation.cos, f"{prefix}.sin_freqs": rotation.sin}
    return tables


@pytest.mark.parametrize("case", CASES)
def test_every_published_table_is_reproduced(golden: Path, case: str) -> None:
    geometry, arrays = case_geometry(golden, case)
    tables = named_tables(geometry)
    compared = 0
    for name, table in tables.items():
        wanted = arrays[f"buffer/model.{name}"]
        found = table.numpy().reshape(wanted.shape)
        # Neighbours must be the very same; the rest may differ by one rounding of the platform.
        tolerance = 0 if name.endswith("neighbors") else 5e-7
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=name)
        compared += 1
    assert compared == 13


def test_children_lie_around_their_parent() -> None:
    fine, coarse = (unit_vectors(healpix_radians(nside)) for nside in (8, 4))
    mean = torch.nn.functional.normalize(torch.unflatten(fine, 0, (-1, 4)).mean(1), dim=-1)
    assert float((mean * coarse).sum(-1).min()) > 0.99


def test_pixels_are_nested_with_longitudes_from_zero() -> None:
    places = healpix_radians(4)
    assert places.dtype == np.float32
    assert 0 <= places[:, 1].min() < places[:, 1].max() < 2 * np.pi
    vectors = np.stack(healpy.pix2vec(4, np.arange(192), nest=True), -1)
    np.testing.assert_allclose(unit_vectors(places), vectors, atol=3e-7)


def test_grid_points_are_longitude_major_from_the_south() -> None:
    places = np.rad2deg(grid_radians(LONGITUDE, LATITUDE))
    np.testing.assert_allclose(places[0], [-90, 0], atol=1e-4)
    np.testing.assert_allclose(places[120], [90, 0], atol=1e-4)
    np.testing.assert_allclose(places[121 * 7 + 3], [-85.5, 10.5], atol=1e-4)


def test_neighbours_are_the_nearest_by_brute_force() -> None:
    grid, pixels = grid_radians(LONGITUDE[::12], LATITUDE[::10]), healpix_radians(2)
    found = find_neighbors(pixels, grid, 5)
    cosines = unit_vectors(pixels).double() @ unit_vectors(grid).double().T
    best = cosines.topk(5, dim=-1).values
    reached = cosines.gather(1, found.indices).sort(dim=-1, descending=True).values
    torch.testing.assert_close(reached, best, rtol=0, atol=1e-6)
    target, source = unit_vectors(pixels)[7], unit_vectors(grid)[found.indices[7, 0]]
    direction = (target - source) / (target - source).norm()
    torch.testing.assert_close(found.directions[7, 0], direction)


def test_a_neighbour_at_the_target_has_no_direction() -> None:
    pixels = healpix_radians(1)
    assert torch.equal(find_neighbors(pixels, pixels, 1).directions, torch.zeros(12, 1, 3))


def test_standardised_columns_have_mean_0_and_unbiased_std_1() -> None:
    columns = standardize(torch.randn(500, 3, generator=torch.manual_seed(0)) * 7 + 3)
    torch.testing.assert_close(columns.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(columns.std(0), torch.ones(3), atol=1e-5, rtol=0)
    assert torch.equal(standardize(torch.ones(9, 2)), torch.zeros(9, 2))


def test_more_neighbours_than_places_are_refused(golden: Path) -> None:
    config = read_config(golden / "micro-hres.json")
    with pytest.raises(ModelError, match="k_neighbors is 20, but there are 6 points"):
        build_geometry(config, [0, 120, 240], [-45, 45], np.zeros((3, 2, 3)))


def test_statics_of_another_grid_are_refused(small_config: ModelConfig) -> None:
    with pytest.raises(ModelError, match=r"statics have shape \(240, 120, 3\)"):
        build_geometry(small_config, LONGITUDE, LATITUDE, np.zeros((240, 120, 3)))


def test_without_rope_there_are_no_tables(small_config: ModelConfig, statics: np.ndarray) -> None:
    config = small_config.model_copy(update={"rope": False})
    geometry = build_geometry(config, LONGITUDE, LATITUDE, statics)
    assert geometry.rotations == (None, None)
    assert geometry.to(torch.device("cpu")).points == 29_040


def test_the_pole_rows_of_the_real_grid_find_distinct_points() -> None:
    """All 240 points of a pole tie; k of them are chosen, none twice."""
    config = builtin_config("mini")
    grid = grid_radians(LONGITUDE, LATITUDE)
    found = find_neighbors(healpix_radians(16)[-4:], grid, config.k_neighbors).indices
    assert all(len(set(row.tolist())) == config.k_neighbors for row in found)
