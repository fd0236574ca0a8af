"""Statistics over members in one pass through the cache.

A plane is taken in blocks that stay in a second-level cache with all members. Mean and deviation
are summed there; a selection network then brings every rank that is needed to its place: minimum,
maximum and the neighbours of every quantile come from the same exchanges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from postprocess.rounding import round_into

Fields = NDArray[np.float32]

# Half a plane: 24 members x 61 latitudes x 240 longitudes are 1.4 MB. A quarter costs a tenth more
# in calls, a whole one leaves a cache of 2 MiB. Both halves hold the equator: they are of one size.
_ROWS = (LATITUDE.size + 1) // 2
_BLOCK = _ROWS * LONGITUDE.size

# Of a deviation, which has no large offset: 0.4 %, where 24 members know it to 15 %.
DEVIATION_BITS = 7

Comparator = tuple[int, int, bool, bool]


@lru_cache(maxsize=64)
def selection_network(count: int, ranks: frozenset[int]) -> tuple[Comparator, ...]:
    """Exchanges (low, high, low is read later, high is read later) that place these ranks.

    Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M) for any
    `count`, without the exchanges and halves of exchanges that no wanted rank depends on.
    """
    needed = set(ranks)
    kept: list[Comparator] = []
    for low, high in reversed(list(_merge_exchange(count))):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    top = 1 << max((count - 1).bit_length() - 1, 0)
    p = top
    while p and count > 1:
        q, r, d = top, 0, p
        while True:
            yield from ((i, i + d) for i in range(count - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


class MemberReduction:
    """Mean, standard deviation (ddof 1), minimum, maximum and quantiles over `members` members.

    A workspace of 2.8 MB for 24 members: one for each thread.
    """

    def __init__(self, members: int, quantiles: Sequence[float]) -> None:
        positions = np.asarray(quantiles, dtype=np.float64) * (members - 1)
        below = np.floor(positions).astype(int)
        self._neighbours = [
            (low, min(low + 1, members - 1), np.float32(position - low))
            for low, position in zip(below.tolist(), positions.tolist(), strict=True)
        ]
        self.members = members
        self._block = np.empty((members, _BLOCK), dtype=np.float32)
        self._scratch = np.empty_like(self._block)
        self._program, self._ordered = self._compiled()

    def __call__(self, sources: Sequence[Fields], bits: int | None, out: Fields) -> None:
        """Fill `out` (4 + quantiles, latitude, longitude): mean, deviation, extremes, quantiles.

        `sources` are one plane (member, latitude, longitude), or the two components of a wind
        whose speed is formed in each member first. `bits` rounds every statistic to that many
        mantissa bits, the deviation to DEVIATION_BITS. A point with a value that is not finite is
        NaN in all of them.
        """
        for start in (0, LATITUDE.size - _ROWS):
            part = slice(start, start + _ROWS)
            self._load([source[:, part] for source in sources])
            with np.errstate(invalid="ignore", over="ignore"):
                rows = self._statistics()
            of_deviation = None if bits is None else DEVIATION_BITS
            kept = [bits, of_deviation] + [bits] * (len(rows) - 2)
            for target, values, own in zip(out[:, part], rows, kept, strict=True):
                round_into(target.reshape(-1), values, own)

    def _compiled(self) -> tuple[list[tuple[np.ufunc, Fields, Fields, Fields]], list[Fields]]:
        """The network as calls (operation, left, right, result), and where each rank ends."""
        neighbours = {rank for low, high, _ in self._neighbours for rank in (low, high)}
        wanted = frozenset({0, self.members - 1} | neighbours)
        rows, spare = list(self._block), np.empty(_BLOCK, dtype=np.float32)
        calls: list[tuple[np.ufunc, Fields, Fields, Fields]] = []
        for low, high, keep_low, keep_high in selection_network(self.members, wanted):
            if keep_low:
                calls.append((np.minimum, rows[low], rows[high], spare))
            if keep_high:
                calls.append((np.maximum, rows[low], rows[high], rows[high]))
            if keep_low:
                rows[low], spare = spare, rows[low]
        return calls, rows

    def _load(self, sources: Sequence[Fields]) -> None:
        block = self._block.reshape(self.members, _ROWS, -1)
        if len(sources) == 1:
            np.copyto(block, sources[0])
            return
        other = self._scratch.reshape(block.shape)
        np.multiply(sources[0], sources[0], out=block)
        np.multiply(sources[1], sources[1], out=other)
        np.add(block, other, out=block)
        np.sqrt(block, out=block)

    def _statistics(self) -> list[Fields]:
        mean, deviation = self._moments()
        for operation, left, right, result in self._program:
            operation(left, right, out=result)
        ordered = self._ordered
        rows = [mean, deviation, ordered[0], ordered[-1]]
        rows += [
            ordered[low] + share * (ordered[high] - ordered[low])
            for low, high, share in self._neighbours
        ]
        broken = ~np.isfinite(mean)
        if broken.any():
            rows = [np.where(broken, np.float32(np.nan), values) for values in rows]
        return rows

    def _moments(self) -> tuple[Fields, Fields]:
        """Mean and deviation, summed as differences: single precision loses nothing by it."""
        first, apart, count = self._block[0].copy(), self._scratch, np.float32(self.members)
        np.subtract(self._block, first, out=apart)
        shift = np.add.reduce(apart, axis=0) / count
        np.subtract(apart, shift, out=apart)
        # Members on one side of the first make large sums; what their rounding left is small.
        mean = first + (shift + np.add.reduce(apart, axis=0) / count)
        if self.members == 1:
            return mean, np.full(_BLOCK, np.nan, np.float32)
        np.multiply(apart, apart, out=apart)
        variance = np.add.reduce(apart, axis=0) / (count - 1)
        return mean, np.sqrt(variance)
