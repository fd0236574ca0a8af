"""What the gate found: one finding per check and subject, and the verdict over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mosaic_core.contract.errors import DataError


class Outcome(StrEnum):
    """How a check ended. UNCHECKED says that what it needs was not there."""

    PASS = "pass"
    WARN = "warn"
    REFUSE = "refuse"
    UNCHECKED = "unchecked"


_SEVERITY = (Outcome.UNCHECKED, Outcome.PASS, Outcome.WARN, Outcome.REFUSE)


@dataclass(frozen=True)
class Finding:
    """A measured `value` of `check` on `subject`, the `limit` beyond which it is refused.

    `share` places the value: a half at the warning, 1 at the refusal. `reason` says why the limit
    stands where it does; for UNCHECKED, what was missing.
    """

    check: str
    subject: str
    value: float
    limit: float
    share: float
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Limits:
    """A check's limits: values from `warn` on are a warning, from `refuse` on a refusal.

    When `warn` is above `refuse`, small values are the bad ones.
    """

    warn: float
    refuse: float
    reason: str

    def judge(self, check: str, subject: str, value: float) -> Finding:
        """The finding for a measured value; NaN is refused."""
        share, outcome = self._share(value), self._outcome(value)
        return Finding(check, subject, value, self.refuse, share, outcome, self.reason)

    def _share(self, value: float) -> float:
        if self.warn == self.refuse:
            return value / self.refuse
        return 0.5 + 0.5 * (value - self.warn) / (self.refuse - self.warn)

    def _outcome(self, value: float) -> Outcome:
        sign = 1.0 if self.refuse >= self.warn else -1.0
        if not sign * value < sign * self.refuse:
            return Outcome.REFUSE
        return Outcome.WARN if sign * value >= sign * self.warn else Outcome.PASS


def unchecked(check: str, reason: str) -> Finding:
    """The finding of a check that could not be made."""
    unknown = float("nan")
    return Finding(check, "", unknown, unknown, unknown, Outcome.UNCHECKED, reason)


@dataclass(frozen=True)
class Verdict:
    """All findings about one analysis; the worst of them decides."""

    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst outcome, PASS when there is no finding."""
        worst = max((_SEVERITY.index(f.outcome) for f in self.findings), default=1)
        return _SEVERITY[max(worst, 1)]

    def of(self, outcome: Outcome) -> tuple[Finding, ...]:
        """The findings with that outcome."""
        return tuple(finding for finding in self.findings if finding.outcome is outcome)

    def worst_by_check(self) -> tuple[Finding, ...]:
        """For each check the finding nearest to, or farthest beyond, its limit, in order."""
        worst: dict[str, Finding] = {}
        for finding in self.findings:
            held = worst.get(finding.check)
            if held is None or _nearness(finding) > _nearness(held):
                worst[finding.check] = finding
        return tuple(worst.values())

    def as_record(self) -> dict[str, Any]:
        """For the archive and the catalogue: the outcome, the worst of each check, refusals."""
        shown = {(f.check, f.subject): f for f in self.worst_by_check()}
        shown |= {(f.check, f.subject): f for f in self.of(Outcome.WARN)}
        shown |= {(f.check, f.subject): f for f in self.of(Outcome.REFUSE)}
        return {
            "outcome": self.outcome.value,
            "findings": [_rounded(finding) for finding in shown.values()],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Verdict:
        """What `as_record` kept of a verdict."""
        return cls(tuple(_restored(kept) for kept in record["findings"]))

    def require(self, where: str) -> Verdict:
        """The verdict itself unless it refuses: then a GateRefusal with the worst of each check."""
        refused = Verdict(self.of(Outcome.REFUSE))
        if refused.findings:
            counts = Counter(finding.check for finding in refused.findings)
            lines = [
                f"\n  - {told(finding)}{_and_others(counts[finding.check] - 1)}"
                for finding in refused.worst_by_check()
            ]
            raise GateRefusal(
                self,
                "the gate refuses this analysis:" + "".join(lines),
                where=where,
                remedy="take it from another source; start from the cycle before if all agree",
            )
        return self


class GateRefusal(DataError):
    """The gate refused an analysis; `verdict` has every finding."""

    def __init__(self, verdict: Verdict, what: str, *, where: str, remedy: str) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.verdict = verdict


def told(finding: Finding) -> str:
    """A finding in one line."""
    subject = f" of {finding.subject}" if finding.subject else ""
    return (
        f"{finding.check}{subject}: {finding.value:.4g}, limit {finding.limit:.4g} "
        f"({finding.reason})"
    )


def _and_others(count: int) -> str:
    return f"; and {count} more of this check" if count else ""


def _nearness(finding: Finding) -> tuple[int, float]:
    return _SEVERITY.index(finding.outcome), finding.share


def _rounded(finding: Finding) -> dict[str, Any]:
    record = asdict(finding) | {"outcome": finding.outcome.value}
    for name in ("value", "limit", "share"):
        number = float(f"{record[name]:.4g}")
        record[name] = number if number == number else None
    return record


def _restored(kept: Mapping[str, Any]) -> Finding:
    numbers = {
        name: float("nan") if kept[name] is None else kept[name]
        for name in ("value", "limit", "share")
    }
    return Finding(
        check=kept["check"],
        subject=kept["subject"],
        outcome=Outcome(kept["outcome"]),
        reason=kept["reason"],
        **numbers,
    )


def combine(parts: Iterable[Iterable[Finding]]) -> Verdict:
    """One verdict over the findings of several checks."""
    return Verdict(tuple(finding for part in parts for finding in part))
