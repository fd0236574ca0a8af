"""The toy stages have the doors of the real ones."""

from __future__ import annotations

import inspect

import pytest

from flows import stages
from tests.flows import toy_stages

DOORS = (
    "archive", "fetch", "fill", "held_fills", "history", "initial_state", "mirror",
    "missing_analyses", "publish", "published_address", "reference", "rollout", "settle", "wait",
)  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_a_toy_takes_what_the_stage_takes(name: str) -> None:
    real, toy = (inspect.signature(getattr(module, name)) for module in (stages, toy_stages))
    assert len(real.parameters) == len(toy.parameters)
    assert hasattr(stages, "STATE")
    assert hasattr(toy_stages, "STATE")
