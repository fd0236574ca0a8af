"""The forecast cycle: one of the four daily initial times."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

import numpy as np

from mosaic_core.contract.errors import InputError

CYCLE_HOURS = (0, 6, 12, 18)
_FORMS = re.compile(r"^(\d{4})-?(\d{2})-?(\d{2})[T ]?(\d{2})(?::?00(?::?00)?)?(?:Z|UTC|\+00:00)?$")


def _numbers(match: re.Match[str]) -> tuple[int, int, int, int]:
    year, month, day, hour = map(int, match.groups())
    return year, month, day, hour


@dataclass(frozen=True, order=True)
class Cycle:
    """An initial time at 00, 06, 12 or 18 UTC.

    Raises InputError for any other hour, for a fraction of an hour and for a time zone that is
    not UTC.
    """

    datetime: dt.datetime

    def __post_init__(self) -> None:
        moment = self.datetime
        if moment.utcoffset() != dt.timedelta(0):
            raise InputError(f"cycle {moment!s} is not in UTC", remedy="give a time in UTC")
        on_the_hour = moment == moment.replace(minute=0, second=0, microsecond=0)
        if moment.hour not in CYCLE_HOURS or not on_the_hour:
            raise InputError(
                f"{moment:%Y-%m-%dT%H:%M}Z is not a cycle",
                remedy="cycles are at 00, 06, 12 and 18 UTC, for example 2026-11-23T06Z",
            )

    @classmethod
    def parse(cls, text: str) -> Cycle:
        """Read '2026-11-23T00Z', '20261123T00Z', '2026112300' or the same with minutes 00."""
        match = _FORMS.match(text.strip())
        if match is None:
            raise InputError(
                f"cannot read {text!r} as a cycle", remedy="write it like 2026-11-23T00Z"
            )
        try:
            return cls(dt.datetime(*_numbers(match), tzinfo=dt.UTC))
        except ValueError as error:
            raise InputError(f"{text!r} is not a date: {error}", remedy="check the date") from None

    @classmethod
    def from_datetime64(cls, time: np.datetime64) -> Cycle:
        """The cycle at a naive numpy time, taken as UTC."""
        seconds = int(time.astype("datetime64[s]").astype(np.int64))
        return cls(dt.datetime.fromtimestamp(seconds, tz=dt.UTC))

    @classmethod
    def latest_before(cls, moment: dt.datetime) -> Cycle:
        """The newest cycle whose initial time is not after `moment` (aware)."""
        utc = moment.astimezone(dt.UTC)
        return cls(utc.replace(hour=utc.hour // 6 * 6, minute=0, second=0, microsecond=0))

    @property
    def id(self) -> str:
        """Name for files and keys: 20261123T00Z."""
        return f"{self.datetime:%Y%m%dT%HZ}"

    @property
    def label(self) -> str:
        """Name for people: 2026-11-23T00Z."""
        return f"{self.datetime:%Y-%m-%dT%HZ}"

    @property
    def init_time(self) -> np.datetime64:
        """The initial time, datetime64[ns] without a zone (UTC)."""
        return np.datetime64(self.datetime.replace(tzinfo=None), "ns")

    def shift(self, hours: int) -> Cycle:
        """The cycle `hours` later (a multiple of 6; negative for earlier)."""
        return Cycle(self.datetime + dt.timedelta(hours=hours))

    def history(self, count: int, spacing_hours: int) -> tuple[Cycle, ...]:
        """`count` cycles `spacing_hours` apart, oldest first, ending with this one."""
        return tuple(self.shift(-spacing_hours * back) for back in reversed(range(count)))

    def __str__(self) -> str:
        return self.label
