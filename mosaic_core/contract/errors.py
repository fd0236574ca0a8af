"""Errors whose text is the user's answer.

Each says what is wrong, where, and what to do about it. The command line prints the text and
exits with `exit_code`; nothing else in the project turns these into anything shorter.
"""

from __future__ import annotations


class MosaicOpsError(Exception):
    """What went wrong, `where` (file, field, cycle), and the `remedy` (what to do or type)."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        located = f"{self.where}: {self.what}" if self.where else self.what
        return f"{located}\n  remedy: {self.remedy}" if self.remedy else located


class InputError(MosaicOpsError):
    """A value the user gave cannot be used."""

    exit_code = 2


class SourceError(MosaicOpsError):
    """A source refused, failed, or answered something it must not."""

    exit_code = 3


class NotYetAvailable(SourceError):
    """The source does not have it yet; asking again later is right (EX_TEMPFAIL)."""

    exit_code = 75


class DataError(MosaicOpsError):
    """Data that arrived is damaged, incomplete or inconsistent."""

    exit_code = 4


class ArchiveError(MosaicOpsError):
    """The analysis archive has a gap, a conflict or damage."""

    exit_code = 5


class ModelError(MosaicOpsError):
    """Weights, statistics, statics, configuration or the rollout are not usable."""

    exit_code = 6


class DeviceError(ModelError):
    """The GPU failed, disappeared or ran out of memory during a rollout."""


class StoreError(MosaicOpsError):
    """A forecast or product store is incomplete, damaged or would change its structure."""

    exit_code = 7


class PublishError(MosaicOpsError):
    """The publication could not be made visible, or would have gone backwards."""

    exit_code = 8
