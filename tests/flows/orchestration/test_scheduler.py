"""A cron schedule really produces runs.

With a wrong SQLAlchemy the server is healthy in every other respect and never schedules
anything, so this is the only test that shows the pins work.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.orchestration.server import local_server

REGISTER_AND_WAIT = textwrap.dedent(
    """
    import asyncio
    from datetime import UTC, datetime

    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    @flow(name="every-six-hours")
    def nothing():
        pass

    async def main():
        async with get_client() as client:
            flow_id = await client.create_flow(nothing)
            cron = CronSchedule(cron="0 0,6,12,18 * * *", timezone="UTC")
            await client.create_deployment(
                flow_id, "probe", schedules=[DeploymentScheduleCreate(schedule=cron, active=True)]
            )
            for _ in range(120):
                runs = await client.read_flow_runs()
                if len(runs) >= 3:
                    break
                await asyncio.sleep(0.5)
            for run in runs:
                print(run.expected_start_time.astimezone(UTC).isoformat())

    asyncio.run(main())
    """
)


@pytest.mark.e2e
def test_a_cron_schedule_produces_runs(tmp_path: Path) -> None:
    scheduler = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1"}
    with local_server(tmp_path / "prefect", scheduler) as address:
        done = subprocess.run(
            [sys.executable, "-c", REGISTER_AND_WAIT],
            env={**os.environ, "PREFECT_API_URL": address, "PREFECT_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
    starts = done.stdout.split()
    assert len(starts) >= 3, done.stderr
    assert {start[11:16] for start in starts} <= {"00:00", "06:00", "12:00", "18:00"}
