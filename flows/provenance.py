"""Who made a forecast, from what, with which code: for metadata, and for the run's identity."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from flows.settings import Settings
from flows.storms import storms_in
from mosaic_core.contract.cycle import Cycle
from postprocess.manifest import Manifest
from postprocess.products.climatology import climatology_sha256
from postprocess.products.requests import ProductRequest
from postprocess.provenance import Provenance

if TYPE_CHECKING:
    from mosaic_core.forecaster import Forecaster

RUN_ID_DIGITS = 12
_CLONE = Path(__file__).resolve().parent.parent


def installed_version(distribution: str) -> str:
    """Its version, or `not-installed`: code also runs from a folder, without the metadata."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not-installed"


def code_version() -> str:
    """The version of the distribution, with the commit when it runs from a clone."""
    version = installed_version("mosaic-ops")
    if not (_CLONE / ".git").exists():
        return version
    asked = ["git", "-C", str(_CLONE), "describe", "--always", "--dirty", "--abbrev=12"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"{version}+g{said.stdout.strip()}" if said.returncode == 0 else version


def run_id(cycle: Cycle, settings: Settings, state: xr.Dataset, forecaster: Forecaster) -> str:
    """Name of the run: a digest of everything that decides its bits.

    The same run started again finds what it left; a run that differs in anything never mixes
    with it.
    """
    facts = {
        "cycle": cycle.id,
        "analyses": input_analyses(state),
        "variant": settings.variant,
        "numbers": settings.numbers,
        "lead_hours": settings.lead_hours,
        "rounding": settings.rounding,
        "products": _products(settings.products),
        "storms": [asdict(storm) for storm in storms_in(state.attrs)],
        "weights": forecaster.weights_sha256,
        "precision": forecaster.precision,
        "device": forecaster.device_name,
        "batch_size": forecaster.batch_size,
        "code": code_version(),
        "notice": settings.notice,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:RUN_ID_DIGITS]


def other_shape(manifest: Manifest, settings: Settings) -> str:
    """What is published, in words, when it is not what the settings ask for; else empty."""
    there = (
        str(manifest.provenance.get("model_variant", settings.variant)),
        manifest.members,
        manifest.lead_hours,
    )
    wanted = settings.variant, settings.members, settings.lead_hours
    return "" if there == wanted else f"{_shape(*there)}, not {_shape(*wanted)}"


def _shape(variant: str, members: int, lead_hours: int) -> str:
    return f"{variant} {members} members {lead_hours} h"


def _products(request: ProductRequest) -> dict[str, Any]:
    """What is asked for, with the content of the climatology in the place of its path."""
    facts = asdict(request)
    if request.climatology is not None:
        facts["climatology"] = climatology_sha256(Path(request.climatology))
    return facts


def input_analyses(state: xr.Dataset) -> tuple[str, ...]:
    """One line per slot of an initial state: its time, what stands there (the analysis, or a
    forecast in its place), source, era, digest and the gate's verdict."""
    lines = []
    slots = zip(*(state[name].values for name in ("time", "origin", "provenance")), strict=True)
    for time, origin, text in slots:
        record = json.loads(str(text))
        source = f"{record.get('source', 'unknown')} era {record.get('era', 'unknown')}"
        verdict = record.get("gate", {}).get("outcome", "not judged")
        lines.append(
            f"{Cycle.from_datetime64(time)} {origin} from {source} "
            f"sha256 {record['sha256']} gate {verdict}"
        )
    return tuple(lines)


def provenance(
    settings: Settings, state: xr.Dataset, name: str, forecaster: Forecaster
) -> Provenance:
    """The attributes every store of the run carries."""
    return Provenance(
        run_id=name,
        created=f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        model_variant=settings.variant,
        weights_sha256=forecaster.weights_sha256,
        code_version=code_version(),
        precision=forecaster.precision,
        device=forecaster.device_name,
        batch_size=forecaster.batch_size,
        input_analyses=input_analyses(state),
        comment=settings.notice or "",
    )
