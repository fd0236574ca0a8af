from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.special import ndtri

from mosaic_core.contract.errors import InputError
from mosaic_core.noise import ensemble_noise, member_noise, natural_log, normal_quantile, uniform

INIT_TIME = np.datetime64("2026-11-23T00", "ns")


def test_the_bits_are_pinned() -> None:
    noise = ensemble_noise(INIT_TIME, tuple(range(3000)), 1)
    assert noise.dtype == np.float32
    assert hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest() == (
        "06b51c656e28755c4e114ffe191b5ac885bae3165555a96f2c83d3aed239cf83"
    )


def test_before_1970_has_noise_of_its_own() -> None:
    early = member_noise(np.datetime64("1959-01-01T00", "ns"), 0, 1)
    assert not np.array_equal(early, member_noise(np.datetime64("1981-01-01T00", "ns"), 0, 1))


@pytest.mark.parametrize(
    ("time", "number", "step"),
    [("2026-11-23T06", 5, 2), ("2026-11-23T00", 6, 2), ("2026-11-23T00", 5, 3)],
)
def test_time_member_and_step_each_change_it(time: str, number: int, step: int) -> None:
    other = member_noise(np.datetime64(time, "ns"), number, step)
    assert not np.any(member_noise(INIT_TIME, 5, 2) == other)


def test_a_member_is_the_same_alone_and_in_any_unit_of_time() -> None:
    together = ensemble_noise(INIT_TIME, (9, 3, 17), 4)
    assert np.array_equal(together[2], member_noise(INIT_TIME.astype("M8[h]"), 17, 4))


def test_a_longer_vector_starts_with_the_shorter() -> None:
    assert np.array_equal(member_noise(INIT_TIME, 1, 1, 50)[:7], member_noise(INIT_TIME, 1, 1, 7))


def test_it_is_standard_normal_and_uncorrelated() -> None:
    noise = ensemble_noise(INIT_TIME, tuple(range(20_000)), 1).astype(np.float64)
    count = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(count)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / count)
    neighbours = (noise[1:] * noise[:-1]).mean(), (noise[:, 1:] * noise[:, :-1]).mean()
    assert np.max(np.abs(neighbours)) < 5 / np.sqrt(count)


def test_quantile_and_logarithm_agree_with_scipy_and_numpy() -> None:
    middle = np.linspace(1e-6, 0.4999, 20_001)
    probability = np.concatenate([10.0 ** -np.arange(1, 300, 0.7), middle, 1 - middle])
    assert np.allclose(normal_quantile(probability), ndtri(probability), rtol=2e-15, atol=0)
    assert np.allclose(natural_log(probability), np.log(probability), rtol=1e-15, atol=2e-16)


def test_uniform_stays_inside_zero_and_one() -> None:
    ends = uniform(np.array([0, 2**64 - 1], np.uint64))
    assert 0 < ends[0] < ends[1] <= 1 - 2.0**-54
    assert np.isfinite(normal_quantile(ends)).all()


@pytest.mark.parametrize(
    ("time", "number", "step"),
    [("NaT", 0, 1), ("2026-11-23T00:00:00.5", 0, 1), ("2026-11-23", -1, 1), ("2026-11-23", 0, -1)],
)
def test_bad_arguments_are_named(time: str, number: int, step: int) -> None:
    with pytest.raises(InputError, match="noise needs"):
        member_noise(np.datetime64(time, "ns"), number, step)
