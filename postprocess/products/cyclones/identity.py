"""One identity for a storm across members: known storms by matching, others by clustering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from postprocess.products.cyclones.basins import basin_of
from postprocess.products.cyclones.sphere import KM_PER_DEGREE, distance_km, unit_vectors
from postprocess.products.cyclones.thresholds import Thresholds

FIRST_NUMBER = 70  # ECMWF's ids 70-99 are storms that no agency has named

_STRANGERS_KM = 1e6


@dataclass(frozen=True)
class KnownStorm:
    """A storm that an agency follows at the initial time: its id, name and reported position."""

    storm_id: str
    name: str
    latitude: float
    longitude: float


def identified(
    table: pd.DataFrame, known: Sequence[KnownStorm], thresholds: Thresholds
) -> pd.DataFrame:
    """The table with system_id, storm_id and storm_name filled in.

    Tracks from lead 0 near a known storm take its id, in each member one track a storm, the nearest
    pairs first, whatever the order of `known`. All others are grouped over members and
    numbered per basin from 70, the group with the most members first (numbers pass 99 only when a
    basin has more than 30 groups).
    """
    if table.empty:
        return table
    for storm, rows in _match_known(table, known, thresholds):
        table.loc[rows, ["system_id", "storm_id"]] = storm.storm_id
        table.loc[rows, "storm_name"] = storm.name
    unnamed = [rows for _, rows in _by_track(table) if (table.loc[rows, "system_id"] == "").all()]
    for label, members in _numbered(table, _grouped(table, unnamed, thresholds)):
        table.loc[np.concatenate(members), "system_id"] = label
    return table


def _by_track(table: pd.DataFrame) -> list[tuple[str, NDArray[np.intp]]]:
    return [(str(key), np.asarray(rows)) for key, rows in table.groupby("track_id").groups.items()]


def _match_known(
    table: pd.DataFrame, known: Sequence[KnownStorm], t: Thresholds
) -> Iterator[tuple[KnownStorm, NDArray[np.intp]]]:
    """(storm, rows of its track), one-to-one in each member, the nearest pairs first.

    Of equal distances the first by storm id, then by track, comes first.
    """
    starting = {
        key: (rows, table.loc[rows[0]])
        for key, rows in _by_track(table)
        if table.loc[rows[0], "lead_hours"] == 0
    }
    pairs = sorted(
        (gap, storm.storm_id, key, place)
        for place, storm in enumerate(known)
        for key, (_, first) in starting.items()
        if (gap := _gap_km(storm, first)) <= _reach_km(storm, known, t)
    )
    taken: set[object] = set()
    for _, storm_id, key, place in pairs:
        rows, first = starting[key]
        if taken.isdisjoint(both := {key, (int(first.number), storm_id)}):
            taken |= both
            yield known[place], rows


def _gap_km(storm: KnownStorm, first: pd.Series) -> float:
    return float(distance_km(first.latitude, first.longitude, storm.latitude, storm.longitude))


def _reach_km(storm: KnownStorm, known: Sequence[KnownStorm], t: Thresholds) -> float:
    """How far from the reported position a track may begin; further for the basin's only storm."""
    basin = basin_of(storm.latitude, storm.longitude)
    rivals = [other for other in known if basin_of(other.latitude, other.longitude) == basin]
    return t.lonely_known_km if len(rivals) == 1 else t.known_km


def _grouped(
    table: pd.DataFrame, tracks: Sequence[NDArray[np.intp]], t: Thresholds
) -> list[list[NDArray[np.intp]]]:
    """Tracks grouped by complete linkage of their mean distance over common times."""
    if len(tracks) < 2:
        return [list(tracks)] if tracks else []
    apart = _track_distances(table, tracks, t)
    tree = linkage(squareform(apart), method="complete")
    labels = fcluster(tree, t.same_system_km, criterion="distance")
    return [
        [track for track, own in zip(tracks, labels, strict=True) if own == label]
        for label in dict.fromkeys(labels)
    ]


def _track_distances(
    table: pd.DataFrame, tracks: Sequence[NDArray[np.intp]], t: Thresholds
) -> NDArray[np.float64]:
    """Mean distance in km of every pair over common leads, (track, track), zero on the diagonal.

    Far where they share too few leads or the same member. Two tracks of lead 0 are compared there
    alone: members start from one analysis.
    """
    leads = np.unique(table.lead_hours)
    vectors = np.full((leads.size, len(tracks), 3), np.nan)
    places = np.searchsorted(leads, table.lead_hours)
    points = unit_vectors(table.latitude.to_numpy(), table.longitude.to_numpy())
    for index, rows in enumerate(tracks):
        vectors[places[rows], index] = points[rows]
    chord = np.linalg.norm(vectors[:, :, None] - vectors[:, None, :], axis=-1)
    gaps = np.rad2deg(2 * np.arcsin(np.minimum(chord / 2, 1.0))) * KM_PER_DEGREE
    shared = np.isfinite(gaps)
    counts = shared.sum(0)
    mean = np.where(shared, gaps, 0.0).sum(0) / np.maximum(counts, 1)
    apart = np.where(counts >= t.same_system_points, mean, _STRANGERS_KM)
    if leads[0] == 0:
        apart = np.where(shared[0], gaps[0], apart)
    numbers = table.number.to_numpy()[[rows[0] for rows in tracks]]
    apart[numbers[:, None] == numbers[None, :]] = _STRANGERS_KM
    np.fill_diagonal(apart, 0.0)
    return np.asarray(apart)


def _numbered(
    table: pd.DataFrame, groups: Sequence[list[NDArray[np.intp]]]
) -> list[tuple[str, list[NDArray[np.intp]]]]:
    def significance(group: list[NDArray[np.intp]]) -> tuple[int, int, float]:
        first = table.loc[group[0][0]]
        return -len(group), int(first.lead_hours), float(first.longitude)

    counts: dict[str, int] = {}
    labelled = []
    for group in sorted(groups, key=significance):
        first = table.loc[group[0][0]]
        _, letter = basin_of(float(first.latitude), float(first.longitude))
        number = FIRST_NUMBER + counts.get(letter, 0)
        counts[letter] = counts.get(letter, 0) + 1
        labelled.append((f"{number}{letter}", group))
    return labelled
