"""Moving weather as spherical-harmonic coefficients: waves, red noise, overturning.

Every coefficient is a sum of a few oscillators with seeded phases, so the weather at any time is
computed directly, without stepping through the time before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.synthetic.climate import rain_belt_latitude
from ingest.synthetic.constants import season, seconds_since_2000
from ingest.synthetic.harmonics import GaussGrid, times_sine
from mosaic_core.contract.grid import EARTH_RADIUS_M

Float64 = NDArray[np.float64]
Complex = NDArray[np.complex128]

_OSCILLATORS = 3
_DAY_S = 86_400.0

# Streamfunction noise, one pattern per bump of `atmosphere.NOISE`: rms wind in m/s.
NOISE_WIND = (2.6, 4.8, 6.6, 9.0, 4.6, 3.0)
_NOISE_PEAK = 9.0  # total wavenumber where the noise spectrum turns over
_NOISE_DRIFT = 6.5  # m/s at the equator, eastward solid rotation
# Omega noise, one pattern per structure: rms in Pa/s.
OMEGA_NOISE = (0.21, 0.06, 0.03, 0.10)
AIR_MASS_K = 0.9  # rms of temperature anomalies that carry no wind: the weather of the tropics
_LIFT_PER_WIND = 0.016  # Pa/s of ascent per m/s of poleward wind


@dataclass(frozen=True)
class _Packet:
    """One zonal wavenumber of one storm track: seeded amplitude, speed, width and life cycle."""

    wavenumber: int
    hemisphere: int
    amplitude: float  # streamfunction, m2/s
    frequency: float  # rad/s of the phase, eastward positive
    life_cycle: float  # rad/s of the growth and decay
    phases: tuple[float, float]
    latitude: float
    width: float

    def profile(self, latitude: Float64) -> Float64:
        """Streamfunction amplitude along a meridian."""
        distance = (latitude - self.latitude) / self.width
        taper = np.cos(np.radians(latitude)) ** min(self.wavenumber, 4)
        return self.amplitude * np.exp(-(distance**2)) * taper

    def at(self, seconds: float, season_sine: float) -> complex:
        """Complex amplitude: phase, life cycle, and a stronger winter."""
        life = 1.0 + 0.45 * np.sin(self.life_cycle * seconds + self.phases[1])
        winter = 1.0 - 0.35 * self.hemisphere * season_sine
        return complex(life * winter * np.exp(1j * (self.phases[0] - self.frequency * seconds)))


def _packet(rng: np.random.Generator, wavenumber: int, hemisphere: int, kind: str) -> _Packet:
    synoptic = kind == "synoptic"
    latitude = hemisphere * (rng.normal(49.0, 7.0) if synoptic else rng.normal(58.0, 5.0))
    wind = 3.7 * np.exp(-(((wavenumber - 7.0) / 3.5) ** 2)) if synoptic else 1.0 * wavenumber**0.3
    speed = rng.normal(11.5, 2.0) if synoptic else rng.normal(0.5, 1.5)
    distance = EARTH_RADIUS_M * np.cos(np.radians(latitude))
    taper = np.cos(np.radians(latitude)) ** min(wavenumber, 4)
    return _Packet(
        wavenumber=wavenumber,
        hemisphere=hemisphere,
        amplitude=wind * rng.uniform(0.7, 1.3) * distance / wavenumber / taper,
        frequency=wavenumber * speed / distance,
        life_cycle=2.0 * np.pi / (rng.uniform(4.0, 9.0) * _DAY_S),
        phases=(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)),
        latitude=latitude,
        width=rng.uniform(12.0, 17.0) if synoptic else rng.uniform(16.0, 20.0),
    )


class WaveTrain:
    """A sum of travelling packets in both hemispheres, as coefficients (m, n)."""

    def __init__(self, gauss: GaussGrid, seed: int, kind: str, wavenumbers: range) -> None:
        rng = np.random.default_rng([seed, 11 if kind == "synoptic" else 12])
        self._packets = [
            _packet(rng, m, hemisphere, kind)
            for m in wavenumbers
            for hemisphere in (-1, 1)
            for _ in range(2)
        ]
        self._meridians = [
            gauss.project_wave(p.profile(gauss.latitude), p.wavenumber) for p in self._packets
        ]
        self._shape = (gauss.degree + 1, gauss.degree + 1)

    def coefficients(self, time: np.datetime64) -> tuple[Complex, Complex]:
        """Streamfunction, and the poleward wind's pattern (1/a d/dlongitude, north positive in
        the northern and south positive in the southern hemisphere), both (m, n)."""
        psi, poleward = np.zeros((2, *self._shape), np.complex128)
        seconds, sine = seconds_since_2000(time), season(time)
        for packet, meridian in zip(self._packets, self._meridians, strict=True):
            wave = 0.5 * packet.at(seconds, sine) * meridian
            psi[packet.wavenumber] += wave
            rate = 1j * packet.wavenumber * packet.hemisphere / EARTH_RADIUS_M
            poleward[packet.wavenumber] += rate * wave
        return psi, poleward


class RedNoise:
    """Isotropic random patterns that drift eastward and lose their memory slowly.

    `spectrum` (n,) is the variance per total wavenumber, (pattern,) `rms` the size of each pattern.
    Small scales forget sooner: the spread of the frequencies is n / `memory_days`.
    """

    def __init__(
        self, key: list[int], spectrum: Float64, rms: tuple[float, ...], memory_days: float
    ) -> None:
        degree = spectrum.size - 1
        rng = np.random.default_rng(key)
        shape = (_OSCILLATORS, len(rms), degree + 1, degree + 1)
        m, n = np.arange(degree + 1)[:, None], np.arange(degree + 1)[None, :]
        share = spectrum / spectrum.sum() / (2 * n + 1) * (n >= m)
        size = np.sqrt(share / _OSCILLATORS)
        amplitude = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        scale = np.array(rms)[:, None, None] * size * np.where(m == 0, 1.0, np.sqrt(0.5))
        self._amplitude = (amplitude * scale).astype(np.complex64)
        spread = rng.standard_normal(shape) * n / (memory_days * _DAY_S)
        self._frequency = m * (_NOISE_DRIFT / EARTH_RADIUS_M) + spread

    def coefficients(self, time: np.datetime64) -> NDArray[np.complex64]:
        """Coefficients (pattern, m, n) at a time."""
        phase = self._frequency * seconds_since_2000(time) % (2.0 * np.pi)
        turning = np.exp(-1j * phase.astype(np.float32))
        return np.asarray((self._amplitude * turning).sum(axis=0), np.complex64)


def streamfunction_spectrum(degree: int) -> Float64:
    """Variance per n of streamfunction whose kinetic energy falls as n^-3 beyond the peak."""
    n = np.arange(degree + 1, dtype=np.float64)
    energy = n**2 / (1.0 + (n / _NOISE_PEAK) ** 5)
    energy[:3] = 0.0
    # The last wavenumbers fade out, or their sharp end would ring in the fields.
    energy *= np.exp(-((n / (0.9 * degree)) ** 16))
    rotation = energy / energy.sum() / np.maximum(n * (n + 1), 1.0)
    return rotation * EARTH_RADIUS_M**2


def omega_spectrum(degree: int) -> Float64:
    """Variance per n of omega: flat at the synoptic scales, n^-5/3 below."""
    n = np.arange(degree + 1, dtype=np.float64)
    variance = n / (1.0 + (n / 24.0) ** 2.7)
    return variance * (n > 2) * np.exp(-((n / (0.9 * degree)) ** 16))


def _stormy(coefficients: Complex) -> Complex:
    """The field times 0.8 + 1.6 mu^2 - 2 mu^4: most in the storm tracks, least at the poles."""
    second = times_sine(times_sine(coefficients))
    fourth = times_sine(times_sine(second))
    return 0.8 * coefficients + 1.6 * second - 2.0 * fourth


class Weather:
    """All moving patterns of one seed at spectral truncation `gauss.degree`."""

    def __init__(self, gauss: GaussGrid, seed: int) -> None:
        self._gauss = gauss
        self._synoptic = WaveTrain(gauss, seed, "synoptic", range(3, 15))
        self._planetary = WaveTrain(gauss, seed, "planetary", range(1, 4))
        spectrum = streamfunction_spectrum(gauss.degree)
        per_wind = np.sqrt(spectrum.sum())
        self._rotation = RedNoise(
            [seed, 21], spectrum, tuple(per_wind * wind for wind in NOISE_WIND), 20.0
        )
        self._air_mass = RedNoise([seed, 23], spectrum, (AIR_MASS_K,), 14.0)
        lifting = omega_spectrum(gauss.degree)
        self._lift = RedNoise([seed, 22], lifting, OMEGA_NOISE, 7.0)
        self._moisture = RedNoise([seed, 24], lifting, (1.0,), 20.0)

    def streamfunction(self, time: np.datetime64) -> Complex:
        """(pattern, m, n): the noise patterns, then the synoptic pair, then the planetary pair."""
        synoptic, _ = self._synoptic.coefficients(time)
        planetary, _ = self._planetary.coefficients(time)
        waves = np.stack([synoptic, 1j * synoptic, planetary, 1j * planetary])
        return np.concatenate([self._rotation.coefficients(time), waves])

    def air_mass(self, time: np.datetime64) -> Complex:
        """Warm and cold anomalies near the ground in K, (1, m, n)."""
        return self._air_mass.coefficients(time).astype(np.complex128)

    def moisture(self, time: np.datetime64) -> Complex:
        """Moist and dry filaments, a pattern of unit variance, (1, m, n)."""
        return self._moisture.coefficients(time).astype(np.complex128)

    def omega(self, time: np.datetime64, upper_phase: float) -> Complex:
        """(pattern, m, n), Pa/s: patterns as OMEGA_NOISE; the first carries waves and the cells.

        Air rises where the wind of the middle troposphere, whose phase is `upper_phase` radians
        west of the surface, blows poleward: ahead of the troughs.
        """
        lift = _stormy(self._lift.coefficients(time).astype(np.complex128))
        _, poleward = self._synoptic.coefficients(time)
        lift[0] += -_LIFT_PER_WIND * poleward * np.exp(1j * upper_phase)
        lift[0, 0] += self._cells(season(time))
        return lift

    def _cells(self, season_sine: float) -> Float64:
        """Hadley, Ferrel and polar overturning as zonal coefficients (n,); no global mean."""
        latitude = self._gauss.latitude
        belt = rain_belt_latitude(season_sine)
        profile = -0.045 * np.exp(-(((latitude - belt) / 7.0) ** 2))
        for hemisphere in (-1, 1):
            winter = 1.0 - 0.4 * hemisphere * season_sine
            profile += 0.022 * winter * np.exp(-(((latitude - belt - 22 * hemisphere) / 9) ** 2))
            profile -= 0.014 * np.exp(-(((latitude - 57 * hemisphere) / 9) ** 2))
        result = self._gauss.project_wave(profile, 0)
        result[0] = 0.0
        return result
