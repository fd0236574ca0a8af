"""The status page as text: markdown for Prefect, plain lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from flows.receipts import Receipt
from flows.watch.status import STAGES, Freshness, Row
from mosaic_core.contract.cycle import Cycle

MINOR_STAGES = {"wait", "initial_state"}
"""Shown only where one of the cycles is stuck there: the pages have room for eight columns."""

_DASH = "-"


def matrix_markdown(table: Sequence[Row], figures: Freshness) -> str:
    """Cycle x stage, newest first, with the objective above and the reasons below."""
    head, *body = _grid(table)
    lines = [
        objective_line(figures),
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(cells)} |" for cells in body),
        "",
        *(f"- **{cycle}** {told}" for cycle, told in remarks(table)),
    ]
    return "\n".join(lines)


def matrix_lines(table: Sequence[Row], figures: Freshness) -> list[str]:
    """The same for a terminal, in columns."""
    told = [f"{cycle} {remark}" for cycle, remark in remarks(table)]
    return [*in_columns(_grid(table)), "", objective_line(figures), *told]


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _grid(table: Sequence[Row]) -> list[list[str]]:
    """The head and a line of cells for each cycle: when it was visible, or else its state."""
    stages = [stage for stage in STAGES if stage not in MINOR_STAGES or _is_stuck(table, stage)]
    head = ["cycle", "visible", *(STAGES[stage] for stage in stages)]
    return [head, *(_cells(row, stages) for row in table)]


def _is_stuck(table: Sequence[Row], stage: str) -> bool:
    receipts = (row.receipts.get(stage) for row in table if row.state != "published")
    return any(receipt is not None and receipt.status != "done" for receipt in receipts)


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


NEXT = {
    "due": "has not begun: mosaic-ops workers",
    "interrupted": "was interrupted: mosaic-ops reconcile (every 15 minutes by itself)",
    "expired": "is past the time in which it is made up for: mosaic-ops backfill {0} {0}",
}
"""What to type about a cycle in a state that has no failed stage."""


def remarks(table: Sequence[Row]) -> list[tuple[Cycle, str]]:
    """Why cycles are not published and what to type, from the first that was begun here on."""
    begun = [place for place, row in enumerate(table) if row.was_begun]
    told = []
    for place, row in enumerate(table):
        known = _reasons(row)
        if not known and row.state in NEXT and begun and place <= begun[-1]:
            known = [NEXT[row.state].format(row.cycle)]
        told += [(row.cycle, reason) for reason in known]
    return told


def _reasons(row: Row) -> list[str]:
    """The failed stages' own words, damaged receipts."""
    if row.state == "published":
        return []
    failed = [
        f"{receipt.stage} failed on {receipt.host}, attempt {receipt.attempt}: {receipt.reason}"
        for receipt in row.receipts.values()
        if receipt.status == "failed"
    ]
    return [" ".join(text.split()) for text in (*failed, *row.damaged)]


def hours(value: float | None) -> str:
    """Hours and minutes: 6 h 52 min; after four days (backfills) days and hours: 82 d 13 h."""
    if value is None:
        return _DASH
    if value >= 96:
        return f"{int(value) // 24} d {int(value) % 24:02d} h"
    minutes = round(value * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(row: Row, stages: Sequence[str]) -> list[str]:
    cells = [_cell(row.receipts.get(stage), row) for stage in stages]
    return [row.cycle.label, _visible(row), *cells]


def _visible(row: Row) -> str:
    """`T+6:49` for a published cycle, else its state."""
    if row.latency_hours is None:
        return row.state
    minutes = round(row.latency_hours * 60)
    return f"T+{minutes // 60}:{minutes % 60:02d}"


def _cell(receipt: Receipt | None, row: Row) -> str:
    """`12 s` once done, `running`, `FAILED`, `KILLED` (began, and nothing works on the cycle)."""
    if receipt is None:
        return _DASH
    if receipt.status == "failed":
        return "FAILED"
    if receipt.status == "running":
        return "running" if row.state == "working" else "KILLED"
    assert receipt.seconds is not None, "a receipt that is done has an end"
    tries = f", {receipt.attempt}x" if receipt.attempt > 1 else ""
    return f"{duration(receipt.seconds)}{tries}"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min, 2.5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
