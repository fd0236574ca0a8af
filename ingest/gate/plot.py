"""The gate's verdict as a figure: for each check how much of its limit was used."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from ingest.gate.verdict import Finding, Outcome, Verdict
from mosaic_core.contract.files import write_atomic

_COLOURS = {Outcome.PASS: "#2a9d57", Outcome.WARN: "#e6a117", Outcome.REFUSE: "#c8322b"}
_LONGEST = 2.0


def share(finding: Finding) -> float:
    """Part of the limit that is used, cut at 2: 1 is where refusal begins.

    For checks whose small values are bad it is the limit over the value.
    """
    if finding.value != finding.value or finding.limit == 0:
        return _LONGEST if finding.outcome is Outcome.REFUSE else 0.0
    used = finding.value / finding.limit
    if (used >= 1) is not (finding.outcome is Outcome.REFUSE):
        used = 1 / used if used else _LONGEST
    return min(max(used, 0.0), _LONGEST)


def plot_verdict(verdict: Verdict, title: str, path: Path) -> None:
    """Write a PNG or SVG with one bar per check: its worst subject, and the line of refusal."""
    shown = [f for f in verdict.worst_by_check() if f.outcome is not Outcome.UNCHECKED]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{f.check}: {f.subject}" for f in shown]
    axes.barh(labels, [share(f) for f in shown], color=[_COLOURS[f.outcome] for f in shown])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, _LONGEST)
    axes.invert_yaxis()
    axes.set_xlabel("share of the limit (refused from 1)")
    axes.set_title(f"{title}: {verdict.outcome.value}", loc="left")
    content = BytesIO()
    figure.savefig(content, format=path.suffix.lstrip(".") or "png", dpi=120)
    write_atomic(path, content.getvalue())
