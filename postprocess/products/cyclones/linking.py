"""Linking the centres of successive leads of one member into tracks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from postprocess.products.cyclones.centres import Centres
from postprocess.products.cyclones.sphere import coordinates_of, distance_degrees, unit_vectors
from postprocess.products.cyclones.thresholds import Thresholds

_FAR = 1e6  # degrees: a link that is not allowed


@dataclass
class Track:
    """One feature of one member: `leads` in hours and the entry of each lead's Centres."""

    leads: list[int] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    positions: list[tuple[float, float]] = field(default_factory=list)
    warm: list[bool] = field(default_factory=list)

    def add(self, lead_hours: int, centres: Centres, entry: int) -> None:
        """Continue with one centre."""
        self.leads.append(lead_hours)
        self.entries.append(entry)
        self.positions.append((float(centres.latitude[entry]), float(centres.longitude[entry])))
        self.warm.append(bool(centres.warm[entry]))

    @property
    def last_warm_lead(self) -> int:
        """Lead in hours of the last point with a warm core."""
        return max(lead for lead, warm in zip(self.leads, self.warm, strict=True) if warm)

    def guess(self, lead_hours: int) -> tuple[float, float]:
        """Position expected at a lead if the last motion goes on; the last position if unknown."""
        if len(self.leads) < 2:
            return self.positions[-1]
        latitudes, longitudes = zip(*self.positions[-2:], strict=True)
        before, last = unit_vectors(latitudes, longitudes)
        steps = (lead_hours - self.leads[-1]) / (self.leads[-1] - self.leads[-2])
        latitude, longitude = coordinates_of(last + steps * (last - before))
        return float(latitude), float(longitude)


class MemberLinker:
    """Tracks of one member, extended lead by lead.

    A track starts with a strong, warm-core centre. It goes on through any centre near the guess;
    it ends after `gap_hours` without one, or when its core has not been warm for `cold_hours`.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._active: list[Track] = []
        self.tracks: list[Track] = []

    def advance(self, lead_hours: int, centres: Centres, entries: NDArray[np.intp]) -> None:
        """Link the member's `entries` of `centres` to the tracks, start new ones."""
        t = self._thresholds
        self._active = [
            track
            for track in self._active
            if lead_hours - track.leads[-1] <= t.gap_hours
            and lead_hours - track.last_warm_lead <= t.cold_hours
        ]
        taken = set()
        for track, entry in self._pairs(lead_hours, centres, entries):
            track.add(lead_hours, centres, entry)
            taken.add(entry)
        for entry in entries.tolist():
            if entry not in taken and centres.strong[entry] and centres.warm[entry]:
                track = Track()
                track.add(lead_hours, centres, entry)
                self._active.append(track)
                self.tracks.append(track)

    def _pairs(
        self, lead_hours: int, centres: Centres, entries: NDArray[np.intp]
    ) -> list[tuple[Track, int]]:
        """The assignment of least total distance among links inside their gates."""
        if not self._active or not entries.size:
            return []
        guesses = np.array([track.guess(lead_hours) for track in self._active])
        apart = distance_degrees(
            guesses[:, :1], guesses[:, 1:], centres.latitude[entries], centres.longitude[entries]
        )
        gates = np.array([self._gate(track, lead_hours) for track in self._active])
        cost = np.where(apart <= gates[:, None], apart, _FAR)
        rows, columns = linear_sum_assignment(cost)
        return [
            (self._active[row], int(entries[column]))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if cost[row, column] < _FAR
        ]

    def _gate(self, track: Track, lead_hours: int) -> float:
        t = self._thresholds
        share = t.later_gate_share if len(track.leads) > 1 else 1.0
        periods = (lead_hours - track.leads[-1]) / 6
        return min(t.first_gate_per_6h * share * periods, t.widest_gate)
