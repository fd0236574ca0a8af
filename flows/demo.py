"""The demonstration: the real job over a made-up atmosphere, with a small model, on one machine.

Nothing in it is special but its inputs: the mirror is a local one, the weights are random.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.forecast import Outcome, forecast_cycle
from flows.progress import Reporter
from flows.settings import Settings
from ingest.synthetic.atmosphere import Atmosphere
from ingest.synthetic.mirror import Mirror
from ingest.synthetic.statics import norm_statistics
from ingest.synthetic.tree import make_mirror_tree
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.variables import STATIC_VARIABLES
from mosaic_core.contract.variants import VARIANTS

RunCycle = Callable[[Cycle, Settings, Reporter], Outcome]

CYCLE = Cycle.parse("2026-09-01T00Z")
VARIANT = "mini"
SEED = 2026
NOTICE = "Demonstration: made-up atmosphere, random weights. These maps are not weather."
MARK = "made-by-a-demonstration.txt"
MONTHS = 12  # one sample a month: the statistics only set the scales


@dataclass(frozen=True)
class Demo:
    """Where the demonstration lies and how large it is."""

    folder: Path
    members: int = 8
    steps: int = 8

    @property
    def data(self) -> Path:
        """The data root, where the results lie."""
        return self.folder / "data"

    def settings(self, mirror: str) -> Settings:
        """The settings of an operational run, with the demonstration's inputs."""
        return Settings(
            data_root=self.data,
            variant=VARIANT,
            members=self.members,
            lead_hours=6 * self.steps,
            device="cpu",
            mirrors=(f"made-up={mirror}",),
            notice=NOTICE,
        )


def run_demo(demo: Demo, report: Reporter, run_cycle: RunCycle = forecast_cycle) -> Outcome:
    """Make the inputs that are not there yet, then run the cycle over them."""
    _mark(demo.data)
    analyses = demo.folder / "mirror"
    make_analyses(analyses, report)
    with Mirror(analyses) as mirror:
        settings = demo.settings(mirror.url)
        make_weights(settings.weights, report)
        return run_cycle(CYCLE, settings, report)


def forget_results(demo: Demo) -> None:
    """Delete the data folder; InputError where no demonstration made it, or it cannot be done."""
    if not demo.data.exists():
        return
    if not (demo.data / MARK).is_file():
        raise InputError(
            "this folder was not made by a demonstration, so nothing in it is deleted",
            where=str(demo.data),
            remedy="choose another --output, or delete the folder yourself",
        )
    try:
        shutil.rmtree(demo.data)
    except OSError as error:
        raise InputError(
            f"cannot delete the earlier results: {error.strerror}",
            where=str(error.filename or demo.data),
            remedy="delete the folder yourself, or choose another --output",
        ) from None


def _mark(data: Path) -> None:
    """Show that all in this folder is a demonstration's, unless something was there before."""
    data.mkdir(parents=True, exist_ok=True)
    if not any(data.iterdir()):
        (data / MARK).write_text(f"{NOTICE} `demo --again` deletes this folder.\n")


def make_analyses(folder: Path, report: Reporter) -> None:
    """Write the made-up analyses as GRIB2 files with their indexes, in ECMWF's layout."""
    mini = VARIANTS[VARIANT]
    cycles = CYCLE.history(mini.history_count, mini.history_spacing_hours)
    with report.stage(f"making {len(cycles)} analyses of 0.25 degrees as GRIB2") as advance:
        make_mirror_tree(
            folder, cycles, seed=SEED, progress=lambda _, done, total: advance(done, total, "")
        )


def make_weights(folder: Path, report: Reporter) -> None:
    """Write the bundle of the small model: random weights, the made-up planet's statistics."""
    if (folder / f"{VARIANT}.safetensors").exists():
        return
    from mosaic_core.model.checkpoint import write_random_bundle
    from mosaic_core.model.config import builtin_config

    with report.stage("making a small model with random weights") as advance:
        atmosphere = Atmosphere.model(SEED)
        samples = []
        for month in range(MONTHS):
            time = np.datetime64(f"2026-{month + 1:02d}-15", "ns")
            samples.append(atmosphere.fields(time))
            advance(month + 1, MONTHS, "statistics of a year")
        mean, deviation = norm_statistics(samples)
        static = np.stack([getattr(atmosphere.planet, name).T for name in STATIC_VARIABLES], -1)
        config = builtin_config(VARIANT)
        write_random_bundle(folder, config, SEED, mean, deviation, static)
