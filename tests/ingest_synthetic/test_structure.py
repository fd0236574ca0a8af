"""Vertical structures: slopes are the derivatives of the values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ingest.synthetic import structure
from ingest.synthetic.structure import Structure, bumps, decaying, near_surface, overturning, tilted

FINE_HPA = np.linspace(1000.0, 40.0, 20_001)
FINE_S = np.log(1000.0 / FINE_HPA)


@pytest.fixture
def fine_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "LEVEL_HPA", FINE_HPA)
    monkeypatch.setattr(structure, "LEVEL_S", FINE_S)


@pytest.mark.usefixtures("fine_levels")
@pytest.mark.parametrize(
    "make",
    [
        lambda: bumps((0.3, 1.5), (0.4, 0.6)),
        lambda: decaying((0.2, 0.05)),
        lambda: tilted((1.0, -0.1, 1.5, 0.8), 1.2),
    ],
)
def test_slope_in_height(make: Callable[[], Structure]):
    made = make()
    numeric = np.gradient(made.value, FINE_S, axis=0)
    np.testing.assert_allclose(made.slope[1:-1], numeric[1:-1], atol=2e-3)


@pytest.mark.usefixtures("fine_levels")
@pytest.mark.parametrize("make", [lambda: overturning((1, 3)), lambda: near_surface(3)])
def test_slope_in_pressure(make: Callable[[], Structure]):
    made = make()
    numeric = np.gradient(made.value, FINE_HPA * 100.0, axis=0)
    np.testing.assert_allclose(made.slope[1:-1], numeric[1:-1], rtol=1e-4, atol=1e-10)


@pytest.mark.usefixtures("fine_levels")
def test_overturning_vanishes_aloft_and_below():
    value = overturning((1, 2, 3)).value
    assert np.abs(value[-1]).max() < 0.1
    assert np.abs(value[0]).max() < 0.25
    assert value[:, 0].argmax() > 4000


def test_beside_keeps_the_order():
    both = Structure.beside([bumps((0.0,), (1.0,)), decaying((0.5, 0.1))])
    assert both.value.shape == both.slope.shape == (13, 3)
    np.testing.assert_array_equal(both.slope[:, 1:], decaying((0.5, 0.1)).slope)
