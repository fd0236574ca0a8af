"""The stages of one cycle on the time axis, from the analysis on a mirror to the reader."""

from __future__ import annotations

from collections.abc import Sequence

from flows.receipts import Receipt
from flows.timetable import age_hours
from flows.watch.status import STAGES
from flows.watch.status_text import duration, hours, in_columns
from mosaic_core.contract.cycle import Cycle

BAR_CHARACTERS = 32
HEAD = ("once done", "state", "done at", "took", "tries", "on", "time axis")


def waterfall_markdown(cycle: Cycle, receipts: Sequence[Receipt]) -> str:
    """When the cycle was visible, a line and a bar for each stage, and the reasons of failures.

    Without receipts only that there are none.
    """
    if not receipts:
        return _visible(cycle, receipts)
    table = [list(HEAD), *_body(cycle, receipts)]
    drawn = [[*cells[:-1], f"`{cells[-1]}`"] for cells in table[1:]]
    lines = [f"| {' | '.join(cells)} |" for cells in (table[0], *drawn)]
    lines.insert(1, "|---|---|--:|--:|--:|---|---|")
    reasons = [f"- **{receipt.stage}**: {receipt.reason}" for receipt in receipts if receipt.reason]
    return "\n".join([_visible(cycle, receipts), "", *lines, "", *reasons])


def waterfall_lines(cycle: Cycle, receipts: Sequence[Receipt]) -> list[str]:
    """The same for a terminal, in columns."""
    if not receipts:
        return [_visible(cycle, receipts)]
    table = [list(HEAD), *_body(cycle, receipts)]
    reasons = [f"{receipt.stage}: {receipt.reason}" for receipt in receipts if receipt.reason]
    return [_visible(cycle, receipts), "", *in_columns(table), *reasons]


def _visible(cycle: Cycle, receipts: Sequence[Receipt]) -> str:
    if not receipts:
        return f"Nothing is recorded of {cycle} here."
    published = [r.finished for r in receipts if r.stage == "publish" and r.status == "done"]
    if not published or published[0] is None:
        return f"{cycle} is not visible yet."
    return f"{cycle} was visible at T+{hours(age_hours(cycle, published[0]))}."


def _body(cycle: Cycle, receipts: Sequence[Receipt]) -> list[list[str]]:
    first = min(receipt.started for receipt in receipts)
    last = max(receipt.finished or receipt.started for receipt in receipts)
    whole = max((last - first).total_seconds(), 1e-9)
    body = []
    for receipt in receipts:
        end = receipt.finished or last
        seconds = (end - receipt.started).total_seconds()
        done = f"T+{hours(age_hours(cycle, end))}" if receipt.status == "done" else "-"
        drawn = bar((receipt.started - first).total_seconds() / whole, seconds / whole)
        name, tries = STAGES.get(receipt.stage, receipt.stage), str(receipt.attempt)
        body.append([name, receipt.status, done, duration(seconds), tries, receipt.host, drawn])
    return body


def bar(begin: float, length: float) -> str:
    """A bar on a line of fixed width; `begin` and `length` are fractions of it."""
    start = min(int(begin * BAR_CHARACTERS), BAR_CHARACTERS - 1)
    filled = max(1, min(round(length * BAR_CHARACTERS), BAR_CHARACTERS - start))
    return ("." * start + "#" * filled).ljust(BAR_CHARACTERS, ".")
