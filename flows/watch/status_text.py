"""The status page as text: markdown for Prefect, plain lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from flows.receipts import Receipt
from flows.watch.status import STAGES, Freshness, Row

_DASH = "-"


def matrix_markdown(table: Sequence[Row], figures: Freshness) -> str:
    """Cycle x stage, newest first, with the objective above and the reasons below."""
    head = ["cycle", "state", *STAGES.values(), "visible after"]
    lines = [
        objective_line(figures),
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(_cells(row))} |" for row in table),
        "",
        *(f"- **{row.cycle}** {reason}" for row in table for reason in reasons(row)),
    ]
    return "\n".join(lines)


def matrix_lines(table: Sequence[Row], figures: Freshness) -> list[str]:
    """The same for a terminal, in columns."""
    head = ["cycle", "state", *STAGES.values(), "visible after"]
    body = [head, *(_cells(row) for row in table)]
    widths = [max(len(line[column]) for line in body) for column in range(len(head))]
    grid = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in body
    ]
    told = [f"{row.cycle} {reason}" for row in table for reason in reasons(row)]
    return [*grid, "", objective_line(figures), *told]


def objective_line(figures: Freshness) -> str:
    """How many cycles met the objective, and the usual time to visibility."""
    if not figures.due:
        return "No cycle has been worked on yet."
    share = 100 * figures.met / figures.due
    spread = (
        f"; visible after {hours(figures.p50_hours)} (p50), {hours(figures.p95_hours)} (p95)"
        if figures.p50_hours is not None
        else ""
    )
    return (
        f"{figures.met} of the last {figures.due} cycles ({share:.0f} %) were published by "
        f"T+{figures.objective_hours:g} h{spread}"
    )


def latency_markdown(figures: Freshness) -> str:
    """When each stage is usually done, in hours after the initial time."""
    lines = ["| done | p50 | p95 |", "|---|--:|--:|"]
    for stage, (middle, late) in figures.stages.items():
        lines.append(f"| {STAGES[stage]} | T+{hours(middle)} | T+{hours(late)} |")
    return "\n".join(lines)


def reasons(row: Row) -> list[str]:
    """Why a cycle is not published: the failed stages' own words, damaged receipts."""
    if row.state == "published":
        return []
    failed = [
        f"{receipt.stage} failed on {receipt.host}, attempt {receipt.attempt}: {receipt.reason}"
        for receipt in row.receipts.values()
        if receipt.status == "failed"
    ]
    return [" ".join(text.split()) for text in (*failed, *row.damaged)]


def hours(value: float | None) -> str:
    """Hours and minutes: 6 h 52 min."""
    if value is None:
        return _DASH
    minutes = round(value * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(row: Row) -> list[str]:
    stages = [_cell(row.receipts.get(stage), row) for stage in STAGES]
    return [row.cycle.label, row.state, *stages, hours(row.latency_hours)]


def _cell(receipt: Receipt | None, row: Row) -> str:
    """`ok 12 s`, `running 40 s`, `FAILED`, `KILLED` (began, and nothing works on the cycle)."""
    if receipt is None:
        return _DASH
    if receipt.status == "failed":
        return "FAILED"
    if receipt.status == "running":
        return "running" if row.state == "working" else "KILLED"
    assert receipt.finished is not None, "a receipt that is done has an end"
    tries = f" ({receipt.attempt} tries)" if receipt.attempt > 1 else ""
    return f"ok {duration((receipt.finished - receipt.started).total_seconds())}{tries}"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min, 2.5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
