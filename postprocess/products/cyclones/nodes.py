"""Candidate nodes of pointwise features, with the semantics of TempestExtremes' DetectNodes.

A node is a grid point none of whose 4 neighbours is lower (or, searching maxima, higher), that
survives merging with nearby deeper nodes and around which every given contour closes. As in
DetectNodes: values are single precision; grid points of the pole rows are separate points joined
along the row; plateaus give every one of their points; the flood fill of a contour fails as soon
as it touches a point, the closing ones included, farther than the distance.
Reference: Ullrich et al. 2021, Geosci. Model Dev. 14, 5023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mosaic_core.contract.errors import InputError
from postprocess.products.cyclones.sphere import cosine_limit, unit_vectors

Fields = NDArray[np.float32]

_PATCH_POINTS = 4_000_000  # of flood fills at a time: some 50 MB
_CROSS = np.zeros((3, 3, 3), dtype=bool)  # neighbours within a patch, never between patches
_CROSS[1, 1, :] = _CROSS[1, :, 1] = True


@dataclass(frozen=True)
class Mesh:
    """A latitude-longitude mesh in degrees; `periodic` joins the last column to the first.

    On a mesh that is not periodic the first and last columns have no neighbours east or west.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]
    periodic: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.latitude), len(self.longitude)


@dataclass(frozen=True)
class Nodes:
    """Points of a stack of fields: `index` of the field, `row`, `column`, sorted by all three."""

    index: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]

    def __len__(self) -> int:
        return self.index.size

    def where(self, keep: NDArray[np.bool_]) -> Nodes:
        """The nodes for which `keep` is true."""
        return Nodes(self.index[keep], self.row[keep], self.column[keep])

    def of(self, fields: Fields) -> Fields:
        """Values of `fields` (index, row, column) at the nodes."""
        return fields[self.index, self.row, self.column]


@dataclass(frozen=True)
class Contour:
    """A closed contour: `fields` rise by `delta` (fall, if negative) within `distance` degrees.

    The contour is drawn around the extremum of `fields` within `search` degrees of the node: the
    lowest point for a positive delta, the highest for a negative one.
    """

    fields: Fields = field(repr=False)
    delta: float
    distance: float
    search: float = 0.0

    def __post_init__(self) -> None:
        if self.delta == 0 or not 0 < self.distance < 180 or not 0 <= self.search < 180:
            raise InputError(
                f"closed contour with delta {self.delta:g}, distance {self.distance:g}, "
                f"search {self.search:g}",
                remedy="delta must not be 0; distances are degrees, 0 < distance < 180",
            )


def find_nodes(
    search: Fields,
    mesh: Mesh,
    contours: Sequence[Contour] = (),
    *,
    maxima: bool = False,
    merge_distance: float = 0.0,
    max_abs_latitude: float = 90.0,
) -> Nodes:
    """Nodes of `search` (field, row, column), after limits, merging and every contour in turn."""
    signed = np.negative(search) if maxima else search
    nodes = local_minima(signed, mesh)
    nodes = nodes.where(np.abs(np.array(mesh.latitude)[nodes.row]) <= max_abs_latitude)
    if merge_distance:
        nodes = merged(nodes, signed, mesh, merge_distance)
    for contour in contours:
        nodes = nodes.where(closed(nodes, contour, mesh))
    return nodes


def local_minima(fields: Fields, mesh: Mesh) -> Nodes:
    """Points of (field, row, column) with no lower neighbour north, south, east or west."""
    lowest = np.isfinite(fields)
    lowest[:, 1:] &= ~(fields[:, :-1] < fields[:, 1:])
    lowest[:, :-1] &= ~(fields[:, 1:] < fields[:, :-1])
    if mesh.periodic:
        lowest &= ~(np.roll(fields, 1, axis=2) < fields)
        lowest &= ~(np.roll(fields, -1, axis=2) < fields)
    else:
        inner = fields[:, :, 1:-1]
        lowest[:, :, 1:-1] &= ~((fields[:, :, :-2] < inner) | (fields[:, :, 2:] < inner))
    return Nodes(*np.nonzero(lowest))


def merged(nodes: Nodes, fields: Fields, mesh: Mesh, distance: float) -> Nodes:
    """Nodes without a strictly lower node within `distance` degrees in the same field.

    A node that is itself removed still removes others, as in DetectNodes.
    """
    chord = 2 * math.sin(0.5 * math.radians(distance))
    points = unit_vectors(
        np.array(mesh.latitude)[nodes.row], np.array(mesh.longitude)[nodes.column]
    )
    values = nodes.of(fields)
    keep = np.ones(len(nodes), dtype=bool)
    for start, stop in _runs(nodes.index):
        gaps = points[start:stop, None] - points[None, start:stop]
        near = (gaps**2).sum(-1) <= chord**2
        lower = values[None, start:stop] < values[start:stop, None]
        keep[start:stop] = ~(near & lower).any(1)
    return nodes.where(keep)


def _runs(index: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Start and stop of each run of equal values in a sorted array."""
    cuts = np.flatnonzero(np.diff(index)) + 1
    edges = [0, *cuts.tolist(), index.size]
    return [(a, b) for a, b in pairwise(edges) if b > a]


def closed(nodes: Nodes, contour: Contour, mesh: Mesh) -> NDArray[np.bool_]:
    """Whether the contour closes around each node."""
    fields = contour.fields if contour.delta > 0 else np.negative(contour.fields)
    centres = lowest_within(nodes, fields, mesh, contour.search) if contour.search else nodes
    result = np.zeros(len(nodes), dtype=bool)
    for row in np.unique(centres.row).tolist():
        every = np.flatnonzero(centres.row == row)
        disc = _disc(mesh, row, contour.distance)
        count = max(1, _PATCH_POINTS // (disc.rows.size * disc.offsets.size))
        for here in np.split(every, range(count, every.size, count)):
            some = Nodes(centres.index[here], centres.row[here], centres.column[here])
            result[here] = _closed_on_disc(some, disc, fields, abs(contour.delta), mesh)
    return result


def _closed_on_disc(
    nodes: Nodes, disc: _Disc, fields: Fields, delta: float, mesh: Mesh
) -> NDArray[np.bool_]:
    """Flood fill from nodes of one row at once, in patches that hold the whole disc."""
    columns = (nodes.column[:, None] + disc.offsets) % mesh.shape[1]
    patch = fields[nodes.index[:, None, None], disc.rows[None, :, None], columns[:, None, :]]
    rise = patch - nodes.of(fields)[:, None, None]
    beside = np.ones(columns.shape, dtype=bool)
    if not mesh.periodic:
        reach = nodes.column[:, None] + disc.offsets
        beside = (reach >= 0) & (reach < mesh.shape[1])
    inside = disc.inside(nodes.column) & beside[:, None, :]
    open_ground = ~(rise >= delta) & inside
    links = _Links(columns, beside, mesh)
    centre = (disc.centre_row, disc.centre_column)
    fill = _flooded if mesh.periodic else _flooded_by_steps
    flooded = fill(open_ground, centre, links)
    escapes = links.neighbours(flooded) & ~inside & beside[:, None, :]
    return np.asarray(~escapes.any(axis=(1, 2)))


def _flooded(
    ground: NDArray[np.bool_], centre: tuple[int, int], links: _Links
) -> NDArray[np.bool_]:
    """Points of `ground` (patch, row, column) connected to the centre of their patch."""
    labels, count = label(ground, structure=_CROSS)
    if links.wraps:
        west, east = labels[:, :, 0].ravel(), labels[:, :, -1].ravel()
        both = (west > 0) & (east > 0)
        seams = coo_array(
            (np.ones(both.sum(), bool), (west[both], east[both])), shape=(count + 1, count + 1)
        )
        labels = connected_components(seams, directed=False)[1][labels]
    return np.asarray(ground & (labels == labels[:, centre[0], centre[1], None, None]))


def _flooded_by_steps(
    ground: NDArray[np.bool_], centre: tuple[int, int], links: _Links
) -> NDArray[np.bool_]:
    """The same where links are one-way, as at the ends of a limited area."""
    flooded = np.zeros_like(ground)
    flooded[:, centre[0], centre[1]] = True
    while True:
        grown = flooded | (links.neighbours(flooded) & ground)
        if (grown == flooded).all():
            return flooded
        flooded = grown


class _Links:
    """Which points of the patches are neighbours; patches of whole circles wrap around."""

    def __init__(self, columns: NDArray[np.intp], beside: NDArray[np.bool_], mesh: Mesh) -> None:
        self.wraps = mesh.periodic and columns.shape[1] == mesh.shape[1]
        ends = (columns == 0) | (columns == mesh.shape[1] - 1)
        self._sideways = beside if mesh.periodic else beside & ~ends

    def neighbours(self, points: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The 4 neighbours of `points` (patch, row, column)."""
        found = np.zeros_like(points)
        found[:, 1:] |= points[:, :-1]
        found[:, :-1] |= points[:, 1:]
        starts = points & self._sideways[:, None, :]
        found[:, :, 1:] |= starts[:, :, :-1]
        found[:, :, :-1] |= starts[:, :, 1:]
        if self.wraps:
            found[:, :, 0] |= starts[:, :, -1]
            found[:, :, -1] |= starts[:, :, 0]
        return found


def lowest_within(nodes: Nodes, fields: Fields, mesh: Mesh, distance: float) -> Nodes:
    """The lowest point within `distance` degrees of each node; of equal ones the first found.

    Points are visited breadth first (previous row, next row, next column, previous column), as
    DetectNodes does, so that ties fall alike.
    """
    row, column = nodes.row.copy(), nodes.column.copy()
    for start_row in np.unique(nodes.row):
        here = np.flatnonzero(nodes.row == start_row)
        disc = _disc(mesh, int(start_row), distance)
        rows, places = _visiting_order(mesh, int(start_row), distance)
        reach = nodes.column[here, None] + disc.offsets[places]
        columns = reach % mesh.shape[1]
        allowed = disc.inside(nodes.column[here])[:, rows, places]
        if not mesh.periodic:
            at_end = np.isin(nodes.column[here], (0, mesh.shape[1] - 1))[:, None]
            allowed &= (reach >= 0) & (reach < mesh.shape[1])
            allowed &= ~at_end | (reach == nodes.column[here, None])
        rows = disc.rows[rows]
        values = np.where(allowed, fields[nodes.index[here, None], rows, columns], np.inf)
        best = np.argmin(values, axis=1)
        row[here], column[here] = rows[best], columns[np.arange(here.size), best]
    return Nodes(nodes.index, row, column)


def highest_within(nodes: Nodes, fields: Fields, mesh: Mesh, distance: float) -> Nodes:
    """The highest point within `distance` degrees of each node; of equal ones the first found."""
    return lowest_within(nodes, np.negative(fields), mesh, distance)


@lru_cache(maxsize=4096)
def _visiting_order(
    mesh: Mesh, row: int, distance: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the disc, as indices into it, in the order of a breadth-first search.

    Points exactly on the rim are all in: rounding decides for each column whether they belong.
    """
    disc = _disc(mesh, row, distance)
    inside = disc.inside(np.zeros(1, dtype=np.intp), spare=1e-6)[0]
    start = (disc.centre_row, disc.centre_column)
    order, seen = [start], {start}
    wraps = mesh.periodic and disc.offsets.size == mesh.shape[1]
    for i, j in order:
        for ni, nj in ((i - 1, j), (i + 1, j), (i, j + 1), (i, j - 1)):
            nj = nj % disc.offsets.size if wraps else nj
            fits = 0 <= ni < inside.shape[0] and 0 <= nj < inside.shape[1]
            if fits and (ni, nj) not in seen and inside[ni, nj]:
                seen.add((ni, nj))
                order.append((ni, nj))
    rows, columns = np.array(order).T
    return rows, columns


@dataclass(frozen=True)
class _Disc:
    """A rectangle of points around a row that holds every point within a distance, and a rim."""

    rows: NDArray[np.intp]
    offsets: NDArray[np.intp]
    centre_row: int
    centre_column: int
    mesh: Mesh
    row: int
    distance: float

    def inside(self, columns: NDArray[np.intp], spare: float = 0.0) -> NDArray[np.bool_]:
        """Which points lie within the distance (and `spare` degrees) of each centre column.

        (centre, row, column).
        """
        sine, cosine = _latitude_terms(self.mesh)
        apart = _longitude_cosines(self.mesh)[
            columns[:, None], (columns[:, None] + self.offsets) % self.mesh.shape[1]
        ]
        level = sine[self.row] * sine[self.rows]
        breadth = cosine[self.row] * cosine[self.rows]
        arc = level[None, :, None] + breadth[None, :, None] * apart[:, None, :]
        return np.asarray(arc >= cosine_limit(self.distance + spare))


@lru_cache(maxsize=4096)
def _disc(mesh: Mesh, row: int, distance: float) -> _Disc:
    latitude = np.array(mesh.latitude)
    step = abs(mesh.longitude[1] - mesh.longitude[0])
    near = np.flatnonzero(np.abs(latitude - latitude[row]) <= distance + 1e-6)
    first, last = max(near[0] - 1, 0), min(near[-1] + 1, latitude.size - 1)
    rows = np.arange(first, last + 1)
    half = _half_width(latitude[row], distance, step)
    count = mesh.shape[1]
    if mesh.periodic and 2 * half + 1 >= count:
        offsets = np.arange(count) - count // 2
    else:
        offsets = np.arange(-half, half + 1)
    centre_column = int(np.flatnonzero(offsets == 0)[0])
    return _Disc(rows, offsets, row - first, centre_column, mesh, row, distance)


def _half_width(latitude: float, distance: float, step: float) -> int:
    """Columns from the centre to beyond the easternmost point of the disc, one to spare."""
    reach = math.sin(math.radians(min(distance, 90.0)))
    room = math.cos(math.radians(latitude))
    if abs(latitude) + distance >= 90 or reach >= room:
        return math.ceil(180 / step) + 1
    return math.ceil(math.degrees(math.asin(reach / room)) / step) + 1


@lru_cache(maxsize=8)
def _latitude_terms(mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    radians = [latitude * (math.pi / 180) for latitude in mesh.latitude]
    return np.array([math.sin(x) for x in radians]), np.array([math.cos(x) for x in radians])


@lru_cache(maxsize=8)
def _longitude_cosines(mesh: Mesh) -> NDArray[np.float64]:
    """Cosines of the differences of every pair of longitudes (the C library's, not SIMD's)."""
    radians = np.array(mesh.longitude) * (math.pi / 180)
    differences, places = np.unique(radians[None, :] - radians[:, None], return_inverse=True)
    cosines = np.array([math.cos(difference) for difference in differences])
    return cosines[places.reshape(radians.size, radians.size)]
