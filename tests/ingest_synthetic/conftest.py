"""The made-up atmosphere on coarse grids, and a small mirror tree made from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.decoys import decoys
from ingest.synthetic.grib import Encoder, GribFile, GridLabel, Identity, model_messages
from ingest.synthetic.tree import MirrorFile, mirror_file
from mosaic_core.contract.cycle import Cycle

TIME = np.datetime64("2026-11-23T06", "ns")
COARSE = GridLabel(latitudes=61, longitudes=120)


@pytest.fixture(scope="session")
def model_atmosphere() -> Atmosphere:
    return Atmosphere.model(seed=3)


@pytest.fixture(scope="session")
def history(model_atmosphere: Atmosphere) -> np.ndarray:
    """Four states 6 hours apart, the last at TIME: (state, channel, latitude, longitude)."""
    back = np.arange(-3, 1) * np.timedelta64(6, "h")
    states = np.stack([model_atmosphere.fields(TIME + hours) for hours in back])
    states.flags.writeable = False
    return states


@pytest.fixture(scope="session")
def model_fields(history: np.ndarray) -> np.ndarray:
    """The state at TIME."""
    return history[-1]


@pytest.fixture(scope="session")
def year(model_atmosphere: Atmosphere) -> np.ndarray:
    """Eight states through the year, at all hours of the day."""
    weeks = np.arange(8) * np.timedelta64(45 * 24 + 6, "h")
    first = np.datetime64("2026-01-15T00", "ns")
    states = np.stack([model_atmosphere.fields(first + later) for later in weeks])
    states.flags.writeable = False
    return states


@pytest.fixture(scope="session")
def coarse_atmosphere() -> Atmosphere:
    """Rows and columns as in a file, 3 degrees apart."""
    return Atmosphere(np.linspace(90, -90, 61), 180.0 + 3.0 * np.arange(120), seed=3)


def write_coarse(root: Path, cycle: Cycle, atmosphere: Atmosphere) -> MirrorFile:
    """A complete, small file of a mirror tree on the 3 degree grid."""
    file = mirror_file(root, cycle)
    fields = atmosphere.fields(cycle.init_time)
    grib = GribFile(Identity(cycle, "oper"))
    with Encoder(grib.identity, COARSE) as encoder:
        for label, values in (*model_messages(fields), *decoys("light", fields, atmosphere.planet)):
            grib.add(label, encoder.encode(label, values))
    file.data.parent.mkdir(parents=True, exist_ok=True)
    file.data.write_bytes(grib.content)
    file.index.write_bytes(grib.index())
    return file


@pytest.fixture
def coarse_file(tmp_path: Path, coarse_atmosphere: Atmosphere) -> MirrorFile:
    return write_coarse(tmp_path / "mirror", Cycle.parse("2026-11-23T06Z"), coarse_atmosphere)


@pytest.fixture
def older_file(tmp_path: Path, coarse_atmosphere: Atmosphere) -> MirrorFile:
    return write_coarse(tmp_path / "mirror", Cycle.parse("2026-11-23T00Z"), coarse_atmosphere)
