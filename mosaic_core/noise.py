"""Noise of the ensemble: a pure function of initial time, member and step.

Counter-based Philox 4x64-10 (Salmon et al. 2011, as in numpy): a member can be drawn again alone,
in any batch, on any device. The layout is fixed; changing it changes every forecast:

    key     word 0: initial time in whole seconds since 1970-01-01T00 UTC (two's complement)
            word 1: DOMAIN
    counter word 0: block of four draws, counted by the generator
            word 1: model step (1 is the first step after the analysis)
            word 2: member number
            word 3: 0

The top 53 bits of every draw become a uniform number inside (0, 1), then a normal one by
Wichura's inverse (AS 241). Both use only + - * / and sqrt, which IEEE 754 rounds the same
everywhere; a library logarithm would not give the same bits on every platform.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import InputError

DOMAIN = int.from_bytes(b"mosaic01", "big")
WORD = 2**64

Doubles = NDArray[np.float64]

# AS 241 PPND16: numerator and denominator, highest power first.
CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
SHOULDER = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)
LN2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476


def member_noise(
    init_time: np.datetime64, number: int, step: int, dim: int = 32
) -> NDArray[np.float32]:
    """Standard normal noise of one member at one step, float32 (dim,).

    InputError for an initial time that is not a time or has a fraction of a second, or a
    negative number or step.
    """
    seconds = _whole_seconds(init_time)
    if not (0 <= number < WORD and 0 <= step < WORD):
        raise InputError(f"member {number}, step {step}: noise needs numbers that are not negative")
    key = np.array([seconds % WORD, DOMAIN], dtype=np.uint64)
    counter = np.array([0, step, number, 0], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(dim)
    return normal_quantile(uniform(raw)).astype(np.float32)


def ensemble_noise(
    init_time: np.datetime64, numbers: tuple[int, ...], step: int, dim: int = 32
) -> NDArray[np.float32]:
    """`member_noise` of several members, (number, dim)."""
    return np.stack([member_noise(init_time, number, step, dim) for number in numbers])


def _whole_seconds(init_time: np.datetime64) -> int:
    seconds = init_time.astype("datetime64[s]")
    if np.isnat(init_time) or seconds != init_time:
        raise InputError(f"noise needs an initial time in whole seconds, not {init_time}")
    return int(seconds.astype(np.int64))


def uniform(raw: NDArray[np.uint64]) -> Doubles:
    """64 random bits -> the middle of one of 2^53 equal cells of (0, 1)."""
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal_quantile(probability: Doubles) -> Doubles:
    """Inverse of the normal distribution inside (0, 1), to about 1e-15 relative (AS 241)."""
    centred = probability - 0.5
    middle = centred * _ratio(CENTRE, 0.180625 - centred * centred)
    smaller = np.minimum(probability, 1.0 - probability)
    depth = np.sqrt(-natural_log(smaller))
    outer = np.where(depth <= 5.0, _ratio(SHOULDER, depth - 1.6), _ratio(TAIL, depth - 5.0))
    return np.where(np.abs(centred) <= 0.425, middle, np.copysign(outer, centred))


def natural_log(x: Doubles) -> Doubles:
    """ln x for normal positive x from basic arithmetic: the series of 2 artanh((m - 1)/(m + 1))."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < SQRT_HALF
    mantissa, exponent = np.where(low, 2 * mantissa, mantissa), exponent - low
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    powers = [1.0 / odd for odd in range(25, 0, -2)]
    return exponent * LN2 + 2.0 * ratio * _polynomial(powers, ratio * ratio)


def _ratio(pair: tuple[tuple[float, ...], tuple[float, ...]], x: Doubles) -> Doubles:
    return _polynomial(pair[0], x) / _polynomial(pair[1], x)


def _polynomial(coefficients: tuple[float, ...] | list[float], x: Doubles) -> Doubles:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
