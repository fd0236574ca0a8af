"""How long published stores are kept: rules by kind of store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from mosaic_core.contract.errors import InputError

_RULE = re.compile(r"^(?P<kind>[a-z_]+)=(?:(?P<days>\d+)d)?,?(?:(?P<count>\d+)n)?$")


@dataclass(frozen=True)
class Rule:
    """Kept while younger than `days` or among the newest `count` cycles; None sets no limit."""

    days: int | None = None
    count: int | None = None

    def keeps(self, age: timedelta, place: int) -> bool:
        """Whether a store of that age (postprocess.retention.age_of), `place`-th newest, stays."""
        if self.days is None and self.count is None:
            return True
        young = self.days is not None and age < timedelta(days=self.days)
        return young or (self.count is not None and place < self.count)

    def __str__(self) -> str:
        """Why something went."""
        aged = [f"older than {self.days} days"] if self.days is not None else []
        many = [f"not among the newest {self.count}"] if self.count is not None else []
        return " and ".join(aged + many)


# Members are most of the bytes and are rebuilt from the recipe; products are small and stay.
DEFAULT_RULES: Mapping[str, Rule] = {
    "forecast": Rule(days=30),
    "points": Rule(days=30),
    "ensemble": Rule(days=366),
    "other": Rule(),
}

KINDS = (
    *DEFAULT_RULES, "initial_state", "probabilities", "indices", "meteograms", "spectra",
    "scalar_spectra", "cyclone_probability", "plumes", "tracks", "health", "figures", "atlas",
    "complete",
)  # fmt: skip
"""What a rule may be about: whatever a run publishes, by its name without the ending, and other."""


def parse_rules(texts: Iterable[str]) -> dict[str, Rule]:
    """Rules like 'forecast=10d', 'points=40n' or 'ensemble=30d,100n' over the defaults.

    The kind is a store's name without its ending; 'other' is any that has no rule of its own. A
    rule without limits ('forecast=') keeps forever. InputError for a rule that cannot be read and
    for a kind that no run publishes.
    """
    rules = dict(DEFAULT_RULES)
    for text in texts:
        match = _RULE.match(text)
        if match is None:
            raise InputError(
                f"cannot read the retention rule {text!r}",
                remedy="write it like forecast=10d (days), points=40n (cycles) or both: 10d,40n",
            )
        if match["kind"] not in KINDS:
            raise InputError(
                f"no store is of the kind {match['kind']!r} in the retention rule {text!r}",
                remedy=f"choose from {', '.join(KINDS)}",
            )
        days, count = match["days"], match["count"]
        rules[match["kind"]] = Rule(int(days) if days else None, int(count) if count else None)
    return rules


def rule_of(rules: Mapping[str, Rule], name: str) -> Rule:
    """The rule for a store, by its name without the ending."""
    kind = name.split(".", 1)[0]
    return rules.get(kind, rules.get("other", Rule()))
