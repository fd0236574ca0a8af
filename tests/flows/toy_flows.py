"""The deployed flows over toy stages: what the workers of the tests load."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import toy_stages

sys.modules["flows.stages"] = toy_stages
from flows import deployed, gpu_stage  # noqa: E402
from flows import reconcile as decisions
from flows.deployed import forecast, reconcile, rollout  # noqa: E402

__all__ = ["forecast", "reconcile", "rollout"]


def simulated_now() -> dt.datetime:
    """The time in the file that TOY_CLOCK names, or the real one."""
    path = os.environ.get("TOY_CLOCK")
    if path is None:
        return dt.datetime.now(dt.UTC)
    return dt.datetime.fromisoformat(Path(path).read_text().strip())


deployed.now = simulated_now
gpu_stage.POLL_SECONDS = 0.3
decisions.GRACE = dt.timedelta(seconds=float(os.environ.get("TOY_GRACE_SECONDS", "300")))
