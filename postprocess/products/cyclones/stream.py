"""Tropical cyclones of a streaming forecast, every member."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mosaic_core.contract.artifacts import ForecastStep
from mosaic_core.contract.errors import InputError, StoreError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.products.cyclones.centres import Centres, CycloneFields, find_centres
from postprocess.products.cyclones.identity import KnownStorm, identified
from postprocess.products.cyclones.linking import MemberLinker
from postprocess.products.cyclones.nodes import Mesh
from postprocess.products.cyclones.thresholds import DEFAULT_THRESHOLDS, Thresholds
from postprocess.products.cyclones.tracks import Run, tracks_table, validate_tracks
from postprocess.products.stream import SameRun, plane

MESH = Mesh(tuple(LATITUDE.tolist()), tuple(LONGITUDE.tolist()))


class CycloneTracker:
    """Tracks of warm-core cyclones in every member, with identities across members.

    `land` (latitude, longitude) is the share of land, 0..1; without it no birth over land is
    refused. `known` are the storms that an agency follows at the initial time. `result()` is a
    table with TRACK_COLUMNS: empty, with the same columns, when there is no storm. `members` are
    the members at every lead (hours) so far.
    """

    name = "cyclones"

    def __init__(
        self,
        *,
        land: NDArray[np.floating] | None = None,
        known: Sequence[KnownStorm] = (),
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
    ) -> None:
        if land is not None and land.shape != MESH.shape:
            raise InputError(
                f"the land mask has shape {land.shape}, expected {MESH.shape}",
                where="cyclone tracker",
                remedy="give it as (latitude, longitude), south to north",
            )
        self._land = None if land is None else land.astype(np.float32)
        self._known = tuple(known)
        self._thresholds = thresholds
        self._run = SameRun()
        self._init_time: np.datetime64 = np.datetime64("NaT")
        self.members: dict[int, tuple[int, ...]] = {}
        self._centres: dict[int, Centres] = {}
        self._linkers: dict[int, MemberLinker] = {}

    def update(self, step: ForecastStep) -> None:
        """Find the centres of one lead and link them."""
        self._run.check(step)
        self._init_time = step.init_time
        lead_hours = int(step.lead_time / np.timedelta64(1, "h"))
        centres = find_centres(_fields(step), MESH, self._thresholds, self._land)
        self.members[lead_hours] = step.numbers
        self._centres[lead_hours] = centres
        for member, number in enumerate(step.numbers):
            linker = self._linkers.setdefault(number, MemberLinker(self._thresholds))
            linker.advance(lead_hours, centres, np.flatnonzero(centres.member == member))

    def result(self) -> pd.DataFrame:
        """The tracks over the steps so far; StoreError when there was no step."""
        if not self._centres:
            raise StoreError("no step was given", where=self.name)
        run = Run(self._init_time, self._centres)
        tracks = {number: linker.tracks for number, linker in self._linkers.items()}
        table = tracks_table(tracks, run, self._thresholds)
        identified(table, self._known, self._thresholds)
        return validate_tracks(table, where="cyclone tracker")


def _fields(step: ForecastStep) -> CycloneFields:
    def take(name: str) -> NDArray[np.float32]:
        return np.ascontiguousarray(plane(step, name))

    return CycloneFields(
        msl=take("mean_sea_level_pressure"),
        thickness=take("geopotential_300") - take("geopotential_500"),
        u850=take("u_component_of_wind_850"),
        v850=take("v_component_of_wind_850"),
        u10=take("10m_u_component_of_wind"),
        v10=take("10m_v_component_of_wind"),
    )
