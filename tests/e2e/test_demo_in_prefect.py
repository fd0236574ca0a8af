"""`demo --prefect`: the same run, with its stages and results on Prefect's pages."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from flows.demo import CYCLE
from flows.orchestration.server import local_server
from tests.factories import DemoFolder

ASK = textwrap.dedent(
    """
    import asyncio
    from prefect.client.orchestration import get_client

    async def main():
        async with get_client() as client:
            for run in await client.read_flow_runs():
                print("run", run.name, "|", run.state.name)
            for task in await client.read_task_runs(limit=100):
                print("task", task.name, "|", task.state.name)
            for artifact in await client.read_artifacts(limit=100):
                print("artifact", artifact.type, artifact.key)

    asyncio.run(main())
    """
)


@pytest.mark.e2e
def test_the_run_its_stages_and_its_pictures_are_shown(fresh: DemoFolder) -> None:
    done = subprocess.run(
        [*fresh.command(), "--prefect"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Published {CYCLE}" in done.stdout
    assert "/runs" in done.stdout
    with local_server(fresh.path / "prefect") as address:
        told = subprocess.run(
            [sys.executable, "-c", ASK],
            env={**os.environ, "PREFECT_API_URL": address},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    assert f"run forecast {CYCLE} | Completed" in told
    for stage in ("fetch", "archive", "initial state", "rollout", "publish"):
        assert f"task {stage} {CYCLE} | Completed" in told, told
    assert "artifact markdown" in told
    assert "artifact progress" in told
