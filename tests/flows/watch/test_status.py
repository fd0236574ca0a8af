"""The status page is read from receipts, stores and locks."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from flows.locks import cycle_lock
from flows.settings import Settings
from flows.watch.conditions import Seen, conditions
from flows.watch.reconcile import Verdict, decide
from flows.watch.status import Row, as_json, freshness, percentiles, rows, write_status
from flows.watch.status_text import duration, hours, matrix_lines, matrix_markdown
from mosaic_core.contract.cycle import Cycle
from tests.flows.records import NEWEST, NOW, history, publish, receipt, settings


def published_with_receipt(cycle: Cycle, config: Settings) -> str | None:
    path = config.receipts / cycle.id / "publish.json"
    return f"published/{cycle.id}" if path.exists() else None


def table_of(config: Settings, count: int = 10) -> tuple[Row, ...]:
    return rows(config, NOW, count=count, published=published_with_receipt)


def test_states_tell_killed_from_failed_from_working_from_expired(tmp_path: Path) -> None:
    config = settings(tmp_path)
    cycles = [NEWEST.shift(-6 * back) for back in range(9)]
    for each in cycles[:3]:
        receipt(each, "rollout", 7.0, None).write(config.receipts)
    receipt(cycles[2], "rollout", 7.0, 5, status="failed", reason="no memory").write(
        config.receipts
    )
    history(cycles[3], config.receipts, 7.2)
    with cycle_lock(cycles[0], config.locks):
        states = [row.state for row in table_of(config)]
    assert states[:5] == ["working", "interrupted", "failed", "published", "due"]
    assert states[-1] == "expired"


def test_the_matrix_shows_seconds_tries_and_reasons(tmp_path: Path) -> None:
    config = settings(tmp_path)
    receipt(NEWEST, "fetch", 6.8, 12.3, attempt=2).write(config.receipts)
    receipt(NEWEST, "rollout", 7.0, 5, status="failed", reason="out of\nmemory").write(
        config.receipts
    )
    table = table_of(config)
    figures = freshness(table, 8.0, NOW)
    text = matrix_markdown(table, figures)
    assert "12 s, 2x" in text
    assert "FAILED" in text
    assert "rollout failed on box, attempt 1: out of memory" in text
    lines = matrix_lines(table, figures)
    assert lines[0].split()[:2] == ["cycle", "visible"]
    for stage in ("fetched", "checked", "archived", "rolled out", "products", "published"):
        assert stage in lines[0]
    assert "available" not in lines[0], "shown only where a cycle is stuck in it"
    receipt(NEWEST, "wait", 6.8, 9, status="failed", reason="late").write(config.receipts)
    assert "available" in matrix_lines(table_of(config), figures)[0]
    assert lines[1].startswith("2026-11-23T00Z  failed")


def test_what_to_type_stands_under_the_matrix(tmp_path: Path) -> None:
    config = settings(tmp_path)
    begun = NEWEST.shift(-6 * 10)
    receipt(NEWEST.shift(-6), "rollout", 7.0, None).write(config.receipts)
    receipt(begun, "rollout", 7.0, None).write(config.receipts)
    table = table_of(config, count=13)
    lines = matrix_lines(table, freshness(table, 8.0, NOW))
    told = {line.split()[0]: line for line in lines[15:]}
    assert told["2026-11-23T00Z"].endswith("has not begun: mosaic-ops workers")
    assert "was interrupted: mosaic-ops reconcile" in told["2026-11-22T18Z"]
    assert told[str(begun)].endswith(f"mosaic-ops backfill {begun} {begun}")
    assert str(begun.shift(-6)) not in told, "before anybody began"
    assert f"- **{NEWEST}** has not begun" in matrix_markdown(table, freshness(table, 8.0, NOW))


def test_a_published_cycle_says_when_it_was_visible(tmp_path: Path) -> None:
    config = settings(tmp_path)
    history(NEWEST, config.receipts, 7.2)
    table = table_of(config)
    assert matrix_lines(table, freshness(table, 8.0, NOW))[1].startswith("2026-11-23T00Z  T+7:12 ")


def test_a_damaged_receipt_is_named_and_hides_nothing_else(tmp_path: Path) -> None:
    config = settings(tmp_path)
    history(NEWEST, config.receipts, 7.2)
    (config.receipts / NEWEST.id / "rollout.json").write_text("{")
    row = table_of(config)[0]
    assert row.state == "published"
    assert "rollout.json" in row.damaged[0]


def test_freshness_counts_missed_cycles_and_not_the_days_before(tmp_path: Path) -> None:
    config = settings(tmp_path)
    for back, visible in ((0, 7.0), (1, 9.5), (3, 7.5)):
        history(NEWEST.shift(-6 * back), config.receipts, visible)
    receipt(NEWEST.shift(-24), "fetch", 6.8, 5).write(config.receipts)  # only needed as history
    figures = freshness(table_of(config), 8.0, NOW)
    assert (figures.met, figures.due) == (2, 4)
    assert figures.p50_hours == 7.5
    assert figures.p95_hours == 9.5
    assert figures.stages["fetch"] == (6.8 + 60 / 3600,) * 2


def test_a_cycle_within_the_objective_is_not_missed_yet(tmp_path: Path) -> None:
    config = settings(tmp_path)
    history(NEWEST.shift(-6), config.receipts, 7.0)
    receipt(NEWEST, "rollout", 6.9, None).write(config.receipts)
    table = table_of(config)
    for age, due in ((7.0, 1), (7.9, 1), (8.0, 2), (9.0, 2)):
        figures = freshness(table, 8.0, NEWEST.datetime + dt.timedelta(hours=age))
        assert (figures.met, figures.due) == (1, due)


def test_percentiles_by_nearest_rank() -> None:
    assert percentiles([]) is None
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles(list(range(1, 101))) == (50, 95)
    assert percentiles([1.0, 2.0]) == (1.0, 2.0)


def test_the_page_is_json_beside_the_catalogue(tmp_path: Path) -> None:
    config = settings(tmp_path)
    history(NEWEST, config.receipts, 7.0)
    table = table_of(config)
    figures = freshness(table, 8.0, NOW)
    write_status(config, NOW, table, figures)
    written = json.loads((Path(config.published) / "status.json").read_text())
    assert written == json.loads(json.dumps(as_json(table, figures, NOW)))
    assert written["cycles"][0]["state"] == "published"
    assert written["cycles"][0]["waterfall_hours"]["publish"] == 7.0
    assert written["freshness"]["cycles_met"] == 1


def test_durations_and_hours_read_well() -> None:
    assert [duration(s) for s in (0.44, 45, 300, 9000)] == ["0.4 s", "45 s", "5 min", "2.5 h"]
    assert hours(6.875) == "6 h 52 min"
    assert hours(1980.95) == "82 d 12 h"
    assert hours(None) == "-"


def test_a_cycle_of_which_the_store_does_not_tell_is_not_due(tmp_path: Path) -> None:
    """A loop of links in place of its pointer, which the kernel refuses to read."""
    config = settings(tmp_path)
    publish(config.published, NEWEST, members=4)
    pointer = Path(config.published) / "cycles" / NEWEST.id / "current.json"
    pointer.unlink()
    pointer.symlink_to(pointer)
    (found,) = rows(config, NOW, count=1)
    assert found.state == "unreachable"
    assert "current.json" in found.damaged[0]
    assert "unreachable" in matrix_lines((found,), freshness((found,), 8.0, NOW))[1]
    calm = Verdict((), (), ())
    assert decide((found,), [], NOW, 3) == calm
    (alert,) = conditions(Seen((found,), calm), config, NOW)
    assert (alert.kind, alert.command) == ("store", "mosaic-ops verify-store")
    assert "current.json" in alert.cause
