"""A whole installation: real server, real workers, toy stages. Nothing is published twice."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.blocks.notifications import SlackWebhook
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.locks import is_worked_on
from flows.settings import Settings
from flows.timetable import due_cycle
from flows.watch.alerts import Alert, update_alerts
from mosaic_core.contract.cycle import Cycle
from tests.flows import toy_stages
from tests.flows.installation import Installation, until

pytestmark = pytest.mark.e2e

SLOW = Cycle.parse("2026-11-20T00Z")
ENDS = {"Published", "Skipped", "Failed", "Crashed", "Completed", "Deferred", "Planned"}


@pytest.fixture(scope="module")
def installed(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Deployed, with a worker on each pool."""
    folder = tmp_path_factory.mktemp("installation")
    found = Installation.at(
        prefect_api,
        folder,
        TOY_STEP_SECONDS="0.5",
        TOY_GRACE_SECONDS="20",
        TOY_SILENCE_SECONDS="15",
        MOSAIC_OPS_CATCHUP_HOURS="12.6",  # the newest due cycle only
        MOSAIC_OPS_LOG_FORMAT="json",
        PREFECT_LOGGING_LEVEL="INFO",
        PREFECT_LOGGING_EXTRA_LOGGERS="mosaic_ops",
    )
    found.deploy()
    for pool in ("cpu", "gpu"):
        found.start_worker(pool)
    yield found
    found.stop_workers()


@pytest.fixture
def settings(installed: Installation) -> Settings:
    return Settings(data_root=installed.folder / "data", variant="mini", members=4, lead_hours=24)


def work(settings: Settings, kind: str) -> Counter[str]:
    """How often each piece of work of a kind was done."""
    lines = (line.split() for line in toy_stages.ledger(settings))
    return Counter(" ".join(words[1:3]) for words in lines if words[0] == kind)


def ended(installed: Installation, run: str) -> str:
    return str(until(lambda: (s := installed.state(run)) in ENDS and s, 120, f"end of {run}"))


def test_the_pools_have_queues_with_live_runs_first(installed: Installation) -> None:
    queues = {
        pool: {
            queue["name"]: (queue["priority"], queue["concurrency_limit"])
            for queue in installed.post(f"/work_pools/{pool}/queues/filter", {})
        }
        for pool in ("cpu", "gpu")
    }
    assert queues["gpu"]["live"][0] < queues["gpu"]["backfill"][0]
    assert queues["gpu"]["backfill"][1] == 1
    assert queues["cpu"]["live"][0] < queues["cpu"]["backfill"][0]
    pool = httpx.get(f"{installed.api}/work_pools/gpu", timeout=30).json()
    assert pool["concurrency_limit"] == 1


def test_deployments_explain_and_check_their_parameters(installed: Installation) -> None:
    found = httpx.get(f"{installed.api}/deployments/name/forecast/live", timeout=30).json()
    schema = found["parameter_openapi_schema"]["properties"]
    assert all("description" in schema[name] for name in ("cycle", "variant", "members"))
    for bad in ({"members": 1000}, {"members": 0}, {"variant": "gfs"}, {"cycle": "../etc"}):
        answer = httpx.post(
            f"{installed.api}/deployments/{found['id']}/create_flow_run",
            json={"parameters": bad},
            timeout=30,
        )
        assert answer.status_code in (409, 422), bad


def test_two_triggers_and_a_killed_rollout_publish_once(
    installed: Installation, settings: Settings
) -> None:
    """The GPU run is killed mid-rollout beside a duplicate trigger: each step is done once."""
    toy_stages.offer(settings, *toy_stages.history(SLOW, settings))
    first = installed.start("forecast/live", cycle=SLOW.label)
    until(lambda: is_worked_on(SLOW, settings.locks), 60, "the lock")
    second = installed.start("forecast/live", cycle=SLOW.label)
    until(lambda: work(settings, "step"), 90, "a step")
    os.kill(_process_of_a_step(settings), signal.SIGKILL)
    assert ended(installed, second) == "Skipped"
    assert ended(installed, first) == "Published"
    assert set(work(settings, "step").values()) == {1}
    assert work(settings, "publish") == {SLOW.id: 1}
    states = [run["state_name"] for run in installed.runs("rollout")]
    assert states == ["Crashed", "Completed"]


def test_a_killed_forecast_is_finished_by_the_reconciler_it_calls(
    installed: Installation, settings: Settings
) -> None:
    """SIGKILL of the forecast's own process: its worker's hook calls the reconciler at once."""
    newest = due_cycle(dt.datetime.now(dt.UTC))
    toy_stages.offer(settings, *toy_stages.history(newest, settings))
    run = installed.start("forecast/live", cycle=newest.label)
    until(lambda: f"{newest.id} 1" in work(settings, "step"), 120, "a step")
    os.kill(int((settings.locks / f"{newest.id}.lock").read_text()), signal.SIGKILL)
    assert ended(installed, run) == "Crashed"
    until(lambda: work(settings, "publish")[newest.id], 180, "the publication")
    assert work(settings, "publish")[newest.id] == 1
    assert set(work(settings, "step").values()) == {1}
    assert len(installed.runs("reconcile")) >= 1


def test_a_backfill_on_the_pools_outlives_its_workers_and_lets_a_live_cycle_pass(
    installed: Installation, settings: Settings
) -> None:
    """Killed with all its runs, brought back by the reconciler; nothing is done twice."""
    cycles = [Cycle.parse("2026-11-10T00Z").shift(6 * place) for place in range(6)]
    toy_stages.offer(settings, *(cycles[0].shift(6 * place) for place in range(-3, 10)))
    first, last = cycles[0].label, cycles[-1].label
    installed.start("backfill/on-demand", first=first, last=last, max_active=2)
    published = work_of(settings, "publish")
    until(lambda: sum(published()[c.id] for c in cycles) >= 2, 180, "two cycles of the backfill")
    kill_with_children(installed.workers.pop(0))
    installed.start_worker("cpu")
    installed.workers.insert(0, installed.workers.pop())
    live = cycles[-1].shift(18)
    installed.start("forecast/live", cycle=live.label)

    def revived() -> bool:
        installed.start("reconcile/every-15-minutes")
        time.sleep(4)
        return any("revival 1" in run["tags"] for run in installed.runs("backfill"))

    until(revived, 180, "the revival")
    until(lambda: published()[live.id], 120, "the live cycle")
    until(lambda: all(published()[c.id] for c in cycles), 300, "the whole backfill")
    assert {published()[cycle.id] for cycle in (*cycles, live)} == {1}
    assert set(work(settings, "fetch").values()) == {1}
    assert set(work(settings, "step").values()) == {1}


def work_of(settings: Settings, kind: str) -> Callable[[], Counter[str]]:
    return lambda: work(settings, kind)


def kill_with_children(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL of a worker and all its runs, as when the machine dies."""
    family = psutil.Process(worker.pid).children(recursive=True)
    for process in (worker.pid, *(each.pid for each in family)):
        os.kill(process, signal.SIGKILL)
    worker.wait()


def test_bad_cycles_fail_with_words(installed: Installation) -> None:
    run = installed.start("forecast/live", cycle="2099-01-01T00Z")
    assert ended(installed, run) == "Failed"
    found = httpx.get(f"{installed.api}/flow_runs/{run}", timeout=30).json()
    assert "in the future" in found["state"]["message"]


def test_the_page_of_a_cycle_has_its_artifacts(installed: Installation) -> None:
    run = next(each for each in installed.runs() if each["state_name"] == "Published")
    found: list[dict[str, Any]] = installed.post(
        "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    )
    kinds = {(each["type"], each["key"]) for each in found}
    assert ("markdown", "overview") in kinds
    assert run["name"] == f"forecast {SLOW}"
    assert f"cycle:{SLOW}" in run["tags"]


def test_the_log_of_a_worker_is_for_machines_when_asked(installed: Installation) -> None:
    text = (installed.folder / "worker-cpu-0.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = [line for line in lines if line.get("cycle") == SLOW.label]
    assert {"fetch", "archive", "publish"} <= {line.get("stage") for line in told}
    run = next(each for each in installed.runs() if each["state_name"] == "Published")
    assert run["id"] in {line.get("run") for line in told}


def test_status_and_workers_speak(installed: Installation) -> None:
    assert "pool gpu: gpu-1" in installed.command("workers").stdout
    lines = installed.command("status", "--cycles", "20").stdout
    assert "published by T+8 h" in lines or "No cycle" in lines


def _process_of_a_step(settings: Settings) -> int:
    steps = [line.split() for line in toy_stages.ledger(settings) if line.startswith("step")]
    return int(steps[-1][3])


def test_no_worker_and_no_server_are_said(installed: Installation) -> None:
    nowhere = {**installed.environment, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    broken = Installation(
        installed.api, installed.folder, {**nowhere, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    )
    said: subprocess.CompletedProcess[str] = broken.command("workers", check=False)
    assert said.returncode == 1
    assert "does not answer" in said.stderr
    assert "PREFECT_API_URL" in said.stderr


PREPARED = Cycle.parse("2026-11-23T00Z")  # what the runbook's examples are about
RUNBOOK = Path(__file__).resolve().parents[3] / "deploy" / "runbook.md"
STAY = {"server", "worker"}  # tests/e2e/test_single_box.py runs them
NEED_MORE = {
    "verify-store",
    "weights",
    "canary",
    "scores",
    "verify",
    "gate",
}  # a model, a scored cycle: in other tests


def runbook_commands() -> list[str]:
    """Every command of ours on the page, as it stands there."""
    text = RUNBOOK.read_text()
    quoted = re.findall(r"`(?:\S*/)?mosaic-ops ([^`]+)`", text)
    blocks = re.findall(r"^(?:\S+=\S+ )?(?:\S*/)?mosaic-ops (.+)$", text, re.M)
    every = dict.fromkeys((*quoted, *blocks))
    return [line for line in every if line.split()[0] not in STAY | NEED_MORE]


def test_every_command_of_the_runbook_does_its_work(
    installed: Installation, settings: Settings
) -> None:
    toy_stages.offer(settings, *toy_stages.history(PREPARED, settings))
    first = Cycle.parse("2026-11-01T00Z")
    toy_stages.offer(settings, *(first.shift(6 * place) for place in range(-3, 56)))
    alert = Alert(kind="late", subject=PREPARED.label, cause="test", command="mosaic-ops status")
    update_alerts([alert], settings.alerts, dt.datetime.now(dt.UTC), lambda *_: None, ["late"])
    with temporary_settings({PREFECT_API_URL: installed.api}):
        SlackWebhook(url="https://hooks.slack.com/services/T0/B0/x").save("oncall")
    commands = runbook_commands()
    assert len(commands) >= 10
    for line in commands:
        if line.startswith("backfill"):
            line += " --every 24h --here --dask threads"  # fewer, and quick with toys
        if line.startswith("deploy"):
            line += f" --file {installed.folder / 'prefect.yaml'}"  # with the toys
        done = installed.command(*shlex.split(line), check=False)
        assert done.returncode == 0, f"{line}: {done.stdout + done.stderr}"
