"""The gate's verdict as a figure: for each check how much of its limit was used."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from ingest.gate.verdict import Outcome, Verdict
from mosaic_core.contract.files import figure_form, write_atomic

_COLOURS = {Outcome.PASS: "#2a9d57", Outcome.WARN: "#e6a117", Outcome.REFUSE: "#c8322b"}
_LONGEST = 2.0


def plot_verdict(verdict: Verdict, title: str, path: Path) -> None:
    """Write the picture of `draw_verdict` in the form that the suffix of `path` names."""
    write_atomic(path, draw_verdict(verdict, title, figure_form(path)))


def draw_verdict(verdict: Verdict, title: str, form: str = "png") -> bytes:
    """A PNG or SVG with one bar per check: its worst subject, and the line of refusal."""
    shown = [f for f in verdict.worst_by_check() if f.outcome is not Outcome.UNCHECKED]
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{f.check}: {f.subject}" for f in shown]
    axes.barh(
        labels,
        [min(max(f.share, 0.0), _LONGEST) for f in shown],
        color=[_COLOURS[f.outcome] for f in shown],
    )
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlim(0, _LONGEST)
    axes.invert_yaxis()
    axes.set_xlabel("half: a warning; 1: refused")
    axes.set_title(f"{title}: {verdict.outcome.value}", loc="left")
    content = BytesIO()
    figure.savefig(content, format=form, dpi=100)
    return content.getvalue()
