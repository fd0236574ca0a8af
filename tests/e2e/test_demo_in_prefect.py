"""`demo --prefect`: the same run, with its stages and results on Prefect's pages.

What the pages are made of is asked of the server; where Chromium is installed, it also shows that
they are drawn and that the browser asks nobody else.
"""

from __future__ import annotations

import base64
import io
import subprocess
from typing import Any

import httpx
import pytest
from PIL import Image

from flows.demo import CYCLE
from flows.orchestration.server import local_server
from tests.browser import browser, program
from tests.factories import DemoFolder

FIGURES = ("geopotential-500", "mean-sea-level-pressure", "spectrum", "tracks")


def asked(api: str, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{api}/{what}/filter", json={}, timeout=60).json()
    return found


@pytest.mark.e2e
def test_the_run_its_stages_and_its_pictures_are_shown(fresh: DemoFolder) -> None:
    done = subprocess.run(
        [*fresh.command(), "--prefect"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Published {CYCLE}" in done.stdout
    assert "/runs" in done.stdout
    with local_server(fresh.path / "prefect") as api:
        [run] = asked(api, "flow_runs")
        artifacts = {each["key"]: each for each in asked(api, "artifacts")}
        tasks = {task["name"]: task["state_name"] for task in asked(api, "task_runs")}
        assert (run["name"], run["state_name"]) == (f"forecast {CYCLE}", "Completed")
        for stage in ("fetch", "archive", "initial state", "rollout", "publish"):
            assert tasks[f"{stage} {CYCLE}"] == "Completed"
        assert {"overview", *FIGURES} <= set(artifacts)
        assert artifacts["gate"]["description"].endswith("pass")
        assert "| imprint of mountains | pass | 2m_temperature |" in artifacts["gate"]["data"]
        assert "data:image/png;base64," in artifacts["gate"]["data"]
        glance = artifacts["overview"]["data"]
        for hours in (0, 6, 12, 18):
            assert f"{CYCLE.shift(-hours)} pass" in glance, "a gate that passed is told in a word"
            assert hours == 0 or f"gate-{hours}-h-before" not in artifacts
        for key in FIGURES:
            data = artifacts[key]["data"]
            picture = base64.b64decode(data.partition("base64,")[2].rstrip(")"))
            assert Image.open(io.BytesIO(picture)).width >= 360, key
            assert len(data) < 200_000, "a row of Prefect's database"
        if where := program():
            look(api.removesuffix("/api"), where, run, artifacts)


def look(root: str, where: str, run: dict[str, Any], artifacts: dict[str, dict[str, Any]]) -> None:
    """The pages as a person sees them."""
    with browser(root, where) as shown:
        shown.open("/runs", f"forecast {CYCLE}", f"cycle:{CYCLE}")
        shown.open(f"/runs/flow-run/{run['id']}", f"rollout {CYCLE}", f"fetching {CYCLE}: done")
        glance = f"/artifacts/artifact/{artifacts['overview']['id']}"
        shown.open(glance, "was visible at T+", "Gate: ", "forecast.zarr")
        assert shown.page.locator("table tr").count() >= 7, "a table, not its source"
        assert len(shown.pictures()) == len(FIGURES)
        for key in FIGURES:
            shown.open(f"/artifacts/artifact/{artifacts[key]['id']}")
            assert min(shown.pictures()) >= 360, key
        assert shown.hosts <= {root.removeprefix("http://"), ""}, "a page asked somebody else"
