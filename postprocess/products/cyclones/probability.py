"""Strike and activity probabilities on a 0.5 degree grid, and plumes of each storm.

Strike probability is the share of members whose centre passes within 120 km (storms there at the
initial time); activity is the same within 300 km for all storms, genesis included: ECMWF's radii.
Activity above a wind speed, in ECMWF's classes, counts a storm only while its strongest wind is
above it.

Members leave when they fall ill (quarantine). A probability is of the members that are healthy at
the end of its window, those of the whole range and the plumes of the members healthy at the last
lead: one that left could show no storm after that, and would count as one without.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mosaic_core.contract.errors import InputError
from mosaic_core.contract.schema import ArraySchema, DatasetSchema
from postprocess.products.cyclones.sphere import KM_PER_DEGREE, unit_vectors
from postprocess.products.cyclones.thresholds import INTENSITY_NOTE, TRACKER_VERSION
from postprocess.products.stream import coordinate

STRIKE_KM = 120.0
ACTIVITY_KM = 300.0
WINDOW_HOURS = 48
WIND_CLASSES = (8.0, 17.0, 32.0)  # m s-1: depression, tropical storm, hurricane force
PLUME_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

LATITUDE = np.arange(-70.0, 70.25, 0.5)
LONGITUDE = np.arange(0.0, 360.0, 0.5)

_MAP = ("latitude", "longitude")
PROBABILITY = DatasetSchema(
    "cyclone probabilities",
    {
        "strike_probability": ArraySchema(_MAP, attributes={"units": "1"}),
        "strike_probability_in_window": ArraySchema(("window", *_MAP)),
        "activity_probability": ArraySchema(_MAP),
        "activity_probability_in_window": ArraySchema(("window", *_MAP)),
        "activity_probability_above_wind": ArraySchema(("wind_class", *_MAP)),
        "activity_probability_above_wind_in_window": ArraySchema(("wind_class", "window", *_MAP)),
        "number_of_members": ArraySchema((), dtype="int32"),
        "number_of_members_in_window": ArraySchema(("window",), dtype="int32"),
    },
    fixed={"latitude": LATITUDE, "longitude": LONGITUDE},
    ascending=("window", "wind_class"),
)
_LONG_NAMES = {
    "strike": f"share of members with a storm of the initial time within {STRIKE_KM:g} km",
    "activity": f"share of members with any tropical cyclone within {ACTIVITY_KM:g} km",
}


@dataclass(frozen=True)
class _Path:
    """One track at hourly points: hours since the initial time, unit vectors, winds in m s-1."""

    number: int
    existing: bool
    hours: NDArray[np.int64]
    vectors: NDArray[np.float64]
    winds: NDArray[np.float64]


@dataclass(frozen=True)
class _Window:
    """Hours from `start` to `end`, both included, and the members that are healthy at its end."""

    start: int
    end: int
    members: frozenset[int]


def probabilities(table: pd.DataFrame, members: Mapping[int, Collection[int]]) -> xr.Dataset:
    """Probabilities over the whole range and in windows of 48 h: PROBABILITY.

    `table` is a table of tracks, `members` the healthy members at every lead (hours), also those
    without a storm. No track gives zeros. InputError when the table shows a member at a lead at
    which it is not among them, or when there is none.
    """
    _require_members(table, members)
    grid = unit_vectors(*(axis.ravel() for axis in np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")))
    tree = cKDTree(grid)
    paths = [_hourly(track) for _, track in table.groupby("track_id", sort=True)]
    windows = _windows(members)
    healthy = np.array([len(window.members) for window in windows], dtype=np.int32)
    arrays: dict[str, xr.Variable] = {}
    for kind, radius, classes in (
        ("strike", STRIKE_KM, ()),
        ("activity", ACTIVITY_KM, WIND_CLASSES),
    ):
        own = [path for path in paths if path.existing or kind == "activity"]
        counts = _visited(own, tree, radius, windows, classes)
        share = (counts / healthy[:, None]).astype(np.float32)
        share = share.reshape(*share.shape[:2], LATITUDE.size, LONGITUDE.size)
        arrays |= _described(kind, radius, share)
    about = {"units": "1", "long_name": "members healthy at the end"}
    arrays["number_of_members"] = xr.Variable((), healthy[0], about)
    arrays["number_of_members_in_window"] = xr.Variable("window", healthy[1:], about)
    dataset = xr.Dataset(arrays, coords=_coordinates(windows[1:]))
    dataset.attrs = {
        "Conventions": "CF-1.12",
        "title": "Tropical-cyclone strike and activity probability",
        "comment": INTENSITY_NOTE,
        "tracker_version": TRACKER_VERSION,
    }
    return PROBABILITY.validate(dataset, where="cyclone probabilities")


def _require_members(table: pd.DataFrame, members: Mapping[int, Collection[int]]) -> None:
    """InputError unless there are members at every lead, and all that the table shows."""
    empty = sorted(lead for lead, numbers in members.items() if not numbers)
    if empty or not members:
        raise InputError(f"no member at the leads {empty}", where="cyclone probabilities")
    shown = sorted(set(zip(table.lead_hours.tolist(), table.number.tolist(), strict=True)))
    extra = [(lead, number) for lead, number in shown if number not in members.get(lead, ())]
    if extra:
        lead, number = extra[0]
        raise InputError(
            f"a track of member {number} at +{lead} h, which is not among the members given",
            where="cyclone probabilities",
            remedy="give the members of the forecast that the tracks are of",
        )


def _windows(members: Mapping[int, Collection[int]]) -> list[_Window]:
    """The whole range, then its windows; a window that ends between leads is of the next lead's."""
    leads = sorted(members)
    starts = range(0, max(leads[-1], 1), WINDOW_HOURS)
    spans = [(start, min(start + WINDOW_HOURS, leads[-1])) for start in starts]
    return [
        _Window(start, end, frozenset(members[next(lead for lead in leads if lead >= end)]))
        for start, end in [(0, leads[-1]), *spans]
    ]


def _described(kind: str, radius: float, share: NDArray[np.float32]) -> dict[str, xr.Variable]:
    attributes = {
        "long_name": _LONG_NAMES[kind],
        "units": "1",
        "radius_km": radius,
    }
    name = f"{kind}_probability"
    arrays = {
        name: xr.Variable(_MAP, share[0, 0], attributes),
        f"{name}_in_window": xr.Variable(("window", *_MAP), share[0, 1:], attributes),
    }
    if len(share) > 1:
        windy = {
            **attributes,
            "long_name": f"{_LONG_NAMES[kind]}, wind above the class",
            "comment": INTENSITY_NOTE,
        }
        dims = ("wind_class", "window", *_MAP)
        arrays[f"{name}_above_wind"] = xr.Variable(("wind_class", *_MAP), share[1:, 0], windy)
        arrays[f"{name}_above_wind_in_window"] = xr.Variable(dims, share[1:, 1:], windy)
    return arrays


def _coordinates(windows: Sequence[_Window]) -> dict[str, xr.Variable]:
    starts, ends = np.array([(window.start, window.end) for window in windows]).T
    about = {"units": "h", "long_name": "lead at the start of the window"}
    classes = {"units": "m s-1", "long_name": "10 m wind speed", "comment": INTENSITY_NOTE}
    return {
        "wind_class": xr.Variable("wind_class", np.array(WIND_CLASSES), classes),
        "window": xr.Variable("window", starts, about),
        "window_end": xr.Variable("window", ends, {**about, "long_name": "lead at its end"}),
        "latitude": coordinate("latitude", LATITUDE),
        "longitude": coordinate("longitude", LONGITUDE),
    }


def _hourly(track: pd.DataFrame) -> _Path:
    """The track along great circles at every hour; one point stays one point."""
    track = track.sort_values("lead_hours")
    leads = track.lead_hours.to_numpy()
    vectors = unit_vectors(track.latitude.to_numpy(), track.longitude.to_numpy())
    hours = np.arange(leads[0], leads[-1] + 1)
    between = np.stack([np.interp(hours, leads, axis) for axis in vectors.T], axis=-1)
    between /= np.linalg.norm(between, axis=-1, keepdims=True)
    winds = np.interp(hours, leads, track.wind_max_ms.to_numpy())
    existing = track.category.iloc[0] == "existing"
    return _Path(int(track.number.iloc[0]), bool(existing), hours, between, winds)


def _visited(
    paths: Sequence[_Path],
    tree: cKDTree,
    radius_km: float,
    windows: Sequence[_Window],
    classes: Sequence[float],
) -> NDArray[np.int32]:
    """Members of each window that come within the radius of a point, (1 + class, window, point).

    The first row counts at any wind, the others only while it is above the class.
    """
    chord = 2 * np.sin(np.deg2rad(radius_km / KM_PER_DEGREE) / 2)
    limits = np.array([-np.inf, *classes])
    starts, ends = np.array([(window.start, window.end) for window in windows]).T
    counts = np.zeros((limits.size, len(windows), tree.n), dtype=np.int32)
    for number in sorted({path.number for path in paths}):
        hits = np.zeros(counts.shape, dtype=bool)
        for path in paths:
            if path.number == number:
                near = tree.query_ball_point(path.vectors, chord)
                for hour, wind, points in zip(path.hours, path.winds, near, strict=True):
                    within = np.flatnonzero((starts <= hour) & (hour <= ends))
                    for row in range(int(np.searchsorted(limits, wind))):
                        for index in within:
                            hits[row, index, points] = True
        counts += hits & np.array([[number in window.members] for window in windows])
    return counts


def plumes(table: pd.DataFrame, members: Mapping[int, Collection[int]]) -> xr.Dataset:
    """Quantiles of pressure and wind of each system over its members that are alive.

    `members` are the healthy members at every lead (hours); only those of the last lead count, so
    that members_alive falls when a storm dies and not when a member is quarantined, and a system
    that no other member shows has no plume. Result (system, lead_hours, quantile): mslp in Pa,
    wind_max in m s-1, NaN where no member is alive; members_alive (system, lead_hours), out of
    number_of_members, must be read with them, for statistics over survivors mislead. No track
    gives an empty `system` dimension. InputError as for `probabilities`.
    """
    _require_members(table, members)
    lead_hours = sorted(members)
    healthy = members[lead_hours[-1]]
    table = table[table.number.isin(list(healthy))]
    systems = sorted(table.system_id.unique().tolist())
    shape = (len(systems), len(lead_hours))
    alive = np.zeros(shape, dtype=np.int32)
    values = {name: np.full((*shape, len(PLUME_QUANTILES)), np.nan, np.float32)
              for name in ("mslp_pa", "wind_max_ms")}  # fmt: skip
    places: dict[object, int] = {lead: index for index, lead in enumerate(lead_hours)}
    for (system, lead), points in table.groupby(["system_id", "lead_hours"]):
        place = systems.index(system), places[lead]
        alive[place] = points.number.nunique()
        for name, found in values.items():
            found[place] = np.quantile(points[name], PLUME_QUANTILES)
    dims = ("system", "lead_hours")
    note = {"comment": INTENSITY_NOTE}
    return xr.Dataset(
        {
            "mslp": ((*dims, "quantile"), values["mslp_pa"], {"units": "Pa", **note}),
            "wind_max": ((*dims, "quantile"), values["wind_max_ms"], {"units": "m s-1", **note}),
            "members_alive": (dims, alive, {"units": "1"}),
            "number_of_members": (
                (),
                np.int32(len(healthy)),
                {"units": "1", "long_name": "members healthy at the last lead"},
            ),
        },
        coords={
            "system": np.array(systems, dtype="U8"),
            "lead_hours": ("lead_hours", np.asarray(lead_hours), {"units": "h"}),
            "quantile": ("quantile", np.array(PLUME_QUANTILES), {"units": "1"}),
        },
        attrs={"Conventions": "CF-1.12", "title": "Plumes of tropical cyclones", **note},
    )
