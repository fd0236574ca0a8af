"""What Prefect costs a cycle: plain functions, tasks in one process, deployed runs on two pools.

The stages are toys, so that nearly everything measured is orchestration.

    python -m tests.bench.orchestration        the table, and results/orchestration.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from flows.settings import Settings
from mosaic_core.contract.cycle import Cycle
from tests.bench.four_days import FourDays, installation, machine
from tests.flows import toy_stages
from tests.flows.installation import until

RESULTS = Path(__file__).resolve().parent / "results" / "orchestration.json"
FIRST = Cycle.parse("2026-10-01T00Z")
TASKS = 6  # wait, fetch, archive, initial state, rollout, publish: one new analysis a cycle


def per_cycle(run: Callable[[Cycle], object], settings: Settings, count: int) -> dict[str, float]:
    """Wall and CPU seconds of this process a cycle; the first one is not counted."""
    window = [FIRST.shift(6 * place) for place in range(count + 1)]
    toy_stages.offer(settings, *toy_stages.history(FIRST, settings), *window)
    run(window[0])
    wall, cpu = time.perf_counter(), time.process_time()
    for cycle in window[1:]:
        run(cycle)
    return {
        "wall_s": (time.perf_counter() - wall) / count,
        "cpu_s": (time.process_time() - cpu) / count,
    }


def deployed(days: FourDays, count: int) -> dict[str, float]:
    """From the trigger to the first stage, and to publication, in the mean of `count` cycles."""
    first_stage, visible = [], []
    for place in range(count):
        cycle = FIRST.shift(240 + 6 * place)
        toy_stages.offer(days.settings, *toy_stages.history(cycle, days.settings))
        days.set_clock(cycle, 6.75)
        asked = time.time()
        days.installed.start("forecast/live", cycle=cycle.label)
        receipt = days.settings.receipts / cycle.id / "wait.json"
        until(receipt.exists, 120, "the first stage")
        first_stage.append(time.time() - asked)
        until(lambda each=cycle: days.published(each), 180, "the publication")
        visible.append(time.time() - asked)
    return {
        "to_first_stage_s": sum(first_stage) / count,
        "to_publication_s": sum(visible) / count,
    }


def memory_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children."""
    family = [process, *process.children(recursive=True)]
    return sum(each.memory_info().rss for each in family) / 1e6


def measure(count: int) -> dict[str, Any]:
    """All figures."""
    sys.modules["flows.stages"] = toy_stages
    from flows.forecast import forecast_cycle
    from flows.orchestration.deployed import run_in_prefect
    from flows.progress import LogReporter

    with installation() as days:
        folder = days.installed.folder
        settings = Settings(data_root=folder / "plain", variant="mini", members=4, lead_hours=24)
        shown = settings.model_copy(update={"data_root": folder / "shown"})
        report = LogReporter()
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        plain = per_cycle(lambda cycle: forecast_cycle(cycle, settings, report), settings, count)
        tasks = per_cycle(
            lambda cycle: run_in_prefect(cycle, shown, days.server.api, report), shown, count
        )
        pools = deployed(days, max(2, count // 3))
        server = psutil.Process(days.server.pid)
        workers = [psutil.Process(worker.pid) for worker in days.installed.workers]
        return {
            **machine(),
            "plain": plain,
            "tasks_in_one_process": tasks,
            "overhead_s_per_cycle": tasks["wall_s"] - plain["wall_s"],
            "overhead_s_per_task": (tasks["wall_s"] - plain["wall_s"]) / TASKS,
            "deployed_on_two_pools": pools,
            "server_mb": memory_mb(server),
            "worker_mb": [memory_mb(worker) for worker in workers],
        }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=6)
    found = measure(parser.parse_args().cycles)
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
