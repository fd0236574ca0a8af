"""What a cycle costs in bytes and seconds: a model with figures of one installation, corrected by
what this installation has measured itself."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.receipts import Receipt
from flows.settings import Settings
from ingest.fetch import MANIFEST
from mosaic_core.contract.artifacts import FetchManifest
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, InputError
from mosaic_core.contract.grid import LATITUDE, LONGITUDE
from mosaic_core.contract.variables import CHANNELS
from postprocess.manifest import Manifest
from postprocess.publish import published_cycle

ANALYSIS_BYTES = 65_400_000.0  # 82 messages in 20 ranges, and what lies between them
MEMBER_STEP_SECONDS = 0.045  # one H100, hres, with products and figures
FIELD_BYTES = 4 * len(CHANNELS) * LATITUDE.size * LONGITUDE.size
MEMBER_SHARE = 0.34  # of float32, after rounding and compression; the points store included
ENSEMBLE_FIELDS = 3.4  # statistics of one lead, in whole fields
ANALYSIS_SHARE = 0.73  # of float32, lossless
LAST = 30  # analyses and cycles that are looked at


@dataclass(frozen=True)
class Costs:
    """Of one analysis to fetch and to archive, of one cycle on the GPU and in the published root.

    `assumed` names what this installation has not measured itself.
    """

    fetch_bytes: float
    archive_bytes: float
    gpu_seconds: float
    stored_bytes: float
    assumed: tuple[str, ...]

    def origin(self, name: str) -> str:
        """Where a figure comes from, for people."""
        return "not measured here yet" if name in self.assumed else "measured here"


def costs(settings: Settings) -> Costs:
    """The costs of a cycle of the settings' shape."""
    runs = list(_runs(settings))
    fetched = _median(_fetched(settings.downloads))
    rate = _median(seconds / _member_steps(settings, run) for run, seconds in runs if seconds)
    ratio = _median(run.bytes / _modelled_bytes(settings, run) for run, _ in runs if run.bytes)
    shape = settings.members, settings.lead_hours
    known = {"fetch": fetched, "gpu": rate, "stored": ratio}
    return Costs(
        fetch_bytes=fetched or ANALYSIS_BYTES,
        archive_bytes=ANALYSIS_SHARE * FIELD_BYTES,
        gpu_seconds=settings.members * settings.steps * (rate or MEMBER_STEP_SECONDS),
        stored_bytes=modelled_bytes(settings, *shape) * (ratio or 1.0),
        assumed=tuple(name for name, value in known.items() if value is None),
    )


def modelled_bytes(settings: Settings, members: int, lead_hours: int) -> float:
    """Size of a publication: every member and the statistics at each lead, and the history."""
    leads = lead_hours // settings.model_variant.step_hours + 1
    history = settings.model_variant.history_count * ANALYSIS_SHARE
    return FIELD_BYTES * (leads * (members * MEMBER_SHARE + ENSEMBLE_FIELDS) + history)


def _modelled_bytes(settings: Settings, run: Manifest) -> float:
    return modelled_bytes(settings, run.members, run.lead_hours)


def _member_steps(settings: Settings, run: Manifest) -> int:
    return max(1, run.members * (run.lead_hours // settings.model_variant.step_hours))


def _runs(settings: Settings) -> Iterator[tuple[Manifest, float | None]]:
    """The last publications, and the seconds of their rollouts that went through in one attempt."""
    for path in _newest(settings.receipts, "publish.json"):
        manifest = published_cycle(settings.published, Cycle.parse(path.parent.name))
        if manifest is not None:
            yield manifest, _whole_rollout(path.with_name("rollout.json"), settings)


def _whole_rollout(path: Path, settings: Settings) -> float | None:
    with suppress(DataError, FileNotFoundError):
        receipt = Receipt.read(path)
        if receipt.status == "done" and receipt.attempt == 1:
            return device_seconds(receipt, settings)
    return None


def device_seconds(rollout: Receipt, settings: Settings) -> float | None:
    """What a rollout took of its device; None before its end.

    A GPU has one run at a time and counts from start to end. A processor has others beside it:
    there its own seconds count.
    """
    return rollout.cpu_seconds if settings.device == "cpu" else rollout.seconds


def _fetched(downloads: Path) -> Iterator[float]:
    """Bytes of the last analyses that were fetched and are still there."""
    for path in _newest(downloads, MANIFEST):
        with suppress(DataError):
            yield float(sum(file.size for file in FetchManifest.read(path).files))


def _newest(folder: Path, name: str) -> Sequence[Path]:
    """The file of that name in the folders of the newest cycles, oldest first."""
    found = (path for path in folder.glob(f"*/{name}") if _is_cycle(path.parent.name))
    return sorted(found)[-LAST:]


def _is_cycle(name: str) -> bool:
    try:
        Cycle.parse(name)
    except InputError:
        return False
    return True


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None
