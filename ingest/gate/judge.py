"""The gate: every check on one analysis, and its verdict."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ingest.gate.physics import between_fields
from ingest.gate.position import position, roughness, statics
from ingest.gate.reference import Planes, Reference, planes_of
from ingest.gate.sequence import since_before
from ingest.gate.statistics import changes, single_fields
from ingest.gate.verdict import Verdict, combine

_LONGEST_STEP = np.timedelta64(24, "h")


def judge(
    planes: Planes,
    *,
    reference: Reference | None = None,
    previous: Planes | None = None,
    static_fields: Planes | None = None,
) -> Verdict:
    """The verdict on the channels in `planes`; checks that lack what they need say so.

    `previous` are the channels of an analysis at most a day earlier. `static_fields` came with
    the analysis: land_sea_mask, geopotential_at_surface.
    """
    known = reference or Reference()
    # Beyond a missing value every mean is NaN: nothing more can be said.
    whole = {name: plane for name, plane in planes.items() if np.isfinite(plane).all()}
    return combine(
        (
            single_fields(planes, known),
            changes(whole, previous, known),
            since_before(whole, previous),
            between_fields(whole),
            position(whole, known),
            roughness(whole, known),
            statics(static_fields or {}, known),
        )
    )


def judge_analysis(
    analysis: xr.Dataset,
    *,
    reference: Reference | None = None,
    previous: xr.Dataset | None = None,
    static_fields: Planes | None = None,
) -> Verdict:
    """`judge` for a dataset of one time; a `previous` more than a day older is not compared."""
    before = None if previous is None or _too_old(analysis, previous) else planes_of(previous)
    planes = planes_of(analysis)
    return judge(planes, reference=reference, previous=before, static_fields=static_fields)


def _too_old(analysis: xr.Dataset, previous: xr.Dataset) -> bool:
    apart = analysis["time"].values.ravel()[0] - previous["time"].values.ravel()[0]
    return not np.timedelta64(0) < apart <= _LONGEST_STEP
