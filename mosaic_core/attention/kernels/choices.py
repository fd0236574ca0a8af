"""How the portable kernels share out their work on one kind of GPU: measured once, then read.

The table of a GPU lies beside the kernels that Triton compiled for it, so that whoever keeps that
folder over a restart keeps both. `tuning.py` makes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import triton

from mosaic_core.attention.kernels.devices import Device
from mosaic_core.contract.files import write_json_atomic

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Warps of a program, stages of its pipeline, and its tile of (rows, columns, depth).

    Without `stages` the pipeline is as deep as the shared memory lasts; a kernel whose tile
    follows from the shapes has none to choose.
    """

    warps: int = 4
    stages: int | None = None
    tile: tuple[int, int, int] = (128, 64, 64)


# The first of each is what runs where nothing has been measured.
CANDIDATES = {
    "attention": (
        Choice(),
        *(Choice(warps, stages) for warps in (4, 8) for stages in (1, 2, 3, 4)),
    ),
    "swiglu": (
        Choice(),
        *(
            Choice(warps, stages, tile)
            for warps, tile in (
                (4, (128, 64, 64)),
                (8, (128, 64, 64)),
                (8, (128, 128, 64)),
                (4, (64, 64, 64)),
                (4, (128, 64, 32)),
                (8, (128, 128, 32)),
            )
            for stages in (2, 3, 4)
        ),
    ),
}

Table = dict[str, Choice]


def choice(gpu: Device, kernel: str) -> Choice:
    """What `kernel` runs with on `gpu`: as measured there, else the first of its candidates."""
    return (kept(gpu) or {}).get(kernel, CANDIDATES[kernel][0])


@functools.cache
def kept(gpu: Device) -> Table | None:
    """The table of `gpu`, or None if there is none, or none that these candidates could have."""
    path = table_path(gpu)
    try:
        found = json.loads(path.read_text())["choices"]
        return {kernel: _candidate(kernel, found[kernel]) for kernel in CANDIDATES}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not used: %s", path, error)
        return None


def keep(gpu: Device, table: Table) -> None:
    """Use `table` on `gpu` from now on, in later processes too where the folder can be written."""
    path = table_path(gpu)
    document = {
        "device": asdict(gpu),
        "triton": triton.__version__,
        "choices": {kernel: asdict(chosen) for kernel, chosen in table.items()},
    }
    kept.cache_clear()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, document)
    except OSError as error:
        logger.warning("the kernels' tiles cannot be kept in %s: %s", path, error)


def table_path(gpu: Device) -> Path:
    """The file of `gpu`; another Triton or other candidates make another file."""
    decided_by = repr((gpu, triton.__version__, CANDIDATES))
    digest = hashlib.sha256(decided_by.encode()).hexdigest()[:12]
    name = re.sub(r"\W+", "-", gpu.name).strip("-").lower()
    return Path(triton.knobs.cache.dir) / "mosaic-ops" / f"{name}-{digest}.json"


def _candidate(kernel: str, found: dict[str, object]) -> Choice:
    for candidate in CANDIDATES[kernel]:
        if json.loads(json.dumps(asdict(candidate))) == found:
            return candidate
    raise ValueError(f"{found} is no candidate of {kernel}")
