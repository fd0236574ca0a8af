"""Injected faults are caught at the first lead that passes their threshold, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.synthetic.atmosphere import Atmosphere
from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import ModelError
from mosaic_core.contract.variables import CHANNEL_NAMES
from postprocess.products.health import HEALTH_COLUMNS, MemberHealth

INIT = np.datetime64("2026-08-20T00", "ns")
MEMBERS = 5
LEADS = 5


@pytest.fixture(scope="module")
def healthy() -> list[np.ndarray]:
    """Five members that part slowly: (member, channel, latitude, longitude) at each lead.

    Member m sees the atmosphere a little later than member 0, by minutes that grow with the lead.
    """
    atmosphere = Atmosphere.model(3)
    leads = []
    for lead in range(LEADS):
        members = []
        for member in range(MEMBERS):
            lag = np.timedelta64(6 * 60 * lead + 8 * lead * member, "m")
            members.append(atmosphere.fields(INIT + lag))
        leads.append(np.stack(members))
    return leads


def step_of(lead: int, fields: np.ndarray, numbers=None) -> ForecastStep:
    numbers = tuple(range(fields.shape[0])) if numbers is None else numbers
    hours = np.timedelta64(6 * lead, "h").astype("timedelta64[ns]")
    return ForecastStep(INIT, lead, hours, numbers, CHANNEL_NAMES, fields)


def run(leads, **options) -> tuple[MemberHealth, list[tuple[int, ...]]]:
    health = MemberHealth(**options)
    survivors = [health.screen(step_of(lead, fields)).numbers for lead, fields in enumerate(leads)]
    return health, survivors


def with_fault(healthy, change) -> list[np.ndarray]:
    """The leads with `change(lead, fields of member 2, all fields)` applied in place."""
    leads = [fields.copy() for fields in healthy]
    for lead, fields in enumerate(leads):
        change(lead, fields[2], fields)
    return leads


def blur(fields: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        fields = (np.roll(fields, 1, -1) + 2 * fields + np.roll(fields, -1, -1)) / 4
        south, north = fields[..., :-2, :], fields[..., 2:, :]
        fields[..., 1:-1, :] = (south + 2 * fields[..., 1:-1, :] + north) / 4
    return fields


def test_nothing_is_flagged_on_healthy_fields(healthy):
    health, survivors = run(healthy)
    assert health.result().empty
    assert list(health.result().columns) == list(HEALTH_COLUMNS)
    assert survivors == [tuple(range(MEMBERS))] * LEADS


def test_nan_is_caught_at_its_lead(healthy):
    def change(lead, member, _):
        if lead >= 2:
            member[7, 3, 4] = np.nan

    health, survivors = run(with_fault(healthy, change))
    assert survivors == [(0, 1, 2, 3, 4)] * 2 + [(0, 1, 3, 4)] * 3
    assert "non-finite values" in health.quarantined[2]
    assert "+12 h" in health.quarantined[2]


def test_blur_is_caught(healthy):
    def change(lead, member, _):
        member[:] = blur(member, 4 if lead >= 1 else 0)

    health, survivors = run(with_fault(healthy, change))
    assert survivors[0] == (0, 1, 2, 3, 4)
    assert survivors[1] == (0, 1, 3, 4)
    assert "blur" in set(health.result().check.str.split(":").str[0])


def test_noise_is_caught(healthy):
    rng = np.random.default_rng(0)
    winds = [CHANNEL_NAMES.index(f"{part}_component_of_wind_500") for part in "uv"]

    def change(lead, member, _):
        if lead >= 3:
            member[winds] += rng.standard_normal((2, 121, 240)).astype(np.float32)

    health, survivors = run(with_fault(healthy, change))
    assert survivors[2] == (0, 1, 2, 3, 4)
    assert survivors[3] == (0, 1, 3, 4)
    assert health.result().check.str.startswith("noise").any()


def test_slow_drift_is_caught_when_it_passes_the_limit(healthy):
    index = CHANNEL_NAMES.index("temperature_500")

    def change(lead, member, _):
        member[index] += 0.4 * lead

    health, survivors = run(with_fault(healthy, change))
    caught = next(lead for lead, numbers in enumerate(survivors) if 2 not in numbers)
    assert caught == 3  # 1.2 K from the median member, the limit is 1
    assert set(health.result().number) == {2}
    assert health.result().check.iloc[0] == "area mean from the median member"


def test_duplicate_is_caught_and_the_original_stays(healthy):
    def change(lead, member, every):
        if lead >= 1:
            member[:] = every[1]

    health, survivors = run(with_fault(healthy, change))
    assert survivors[0] == (0, 1, 2, 3, 4)
    assert survivors[1] == (0, 1, 3, 4)
    assert "copy of another member" in health.quarantined[2]


@pytest.mark.parametrize(
    "pair",
    [("temperature_500", "temperature_600"), ("u_component_of_wind_850", "u_component_of_wind_700"),
     ("geopotential_925", "geopotential_1000"), ("2m_temperature", "10m_u_component_of_wind")],
)  # fmt: skip
def test_permuted_channels_are_caught(healthy, pair):
    a, b = (CHANNEL_NAMES.index(name) for name in pair)

    def change(lead, member, _):
        if lead >= 1:
            member[[a, b]] = member[[b, a]]

    health, survivors = run(with_fault(healthy, change))
    assert survivors[1] == (0, 1, 3, 4)
    assert set(health.result().number) == {2}


def test_all_members_sick_is_refused(healthy):
    leads = [healthy[0], np.stack([blur(member.copy(), 6) for member in healthy[1]])]
    with pytest.raises(ModelError, match="0 healthy members are left, 1 are needed"):
        run(leads)


def test_too_few_members_left_is_refused(healthy):
    def change(lead, member, _):
        if lead == 1:
            member[0] = np.inf

    with pytest.raises(ModelError, match="4 healthy members are left, 5 are needed"):
        run(with_fault(healthy, change), least_members=5)


def test_without_enforcement_faults_are_recorded_and_nobody_leaves(healthy):
    def change(lead, member, _):
        if lead == 1:
            member[0] = np.inf

    health, survivors = run(with_fault(healthy, change), enforce=False)
    assert set(survivors) == {(0, 1, 2, 3, 4)}
    assert not health.quarantined
    assert (health.result().number == 2).all()
    assert len(health.result())
