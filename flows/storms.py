"""The tropical cyclones that agencies follow when a forecast starts, from ECMWF's own tracks.

They are kept in the attributes of the initial state. A cycle never fails for want of them: then
its storms have ids of our own only, and the attributes say why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ingest.sources import Source
from ingest.tropical_tracks import fetch_tracks
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, MosaicOpsError
from postprocess.products.cyclones.ecmwf_bufr import known_storms
from postprocess.products.cyclones.identity import KnownStorm
from postprocess.products.grids import open_any

TRACKS = "tropical-cyclones.bufr"
_STORMS, _ORIGIN = "known_storms", "known_storms_origin"


def storm_attributes(
    cycle: Cycle, mirrors: Sequence[Source], folder: Path, say: Callable[[str], None]
) -> dict[str, str]:
    """Attributes of the initial state that name the storms of `cycle` and where they are from.

    The mirrors are asked in turn; the file is kept in `folder`.
    """
    refusals: list[str] = []
    for source in mirrors:
        try:
            fetch_tracks(cycle, source, folder / TRACKS)
            storms = known_storms(folder / TRACKS, cycle)
        except MosaicOpsError as error:
            refusals.append(f"{source.name}: {error.what}")
            continue
        digest = hashlib.sha256((folder / TRACKS).read_bytes()).hexdigest()
        say(f"storms of {cycle}: {', '.join(storm.storm_id for storm in storms) or 'none'}")
        return _attributes(storms, f"tf file of {cycle} from {source.name} sha256 {digest}")
    why = f"no tf file: genesis ids only ({'; '.join(refusals)})"
    say(f"storms of {cycle}: {why}")
    return _attributes([], why)


def recorded_attributes(state: Path) -> dict[str, str] | None:
    """What an earlier attempt found out, so that the run keeps its name; None if nothing did."""
    if not (state / "zarr.json").exists():
        return None
    with open_any(state) as dataset:
        attrs = dataset.attrs
    return {name: str(attrs[name]) for name in (_STORMS, _ORIGIN)} if _ORIGIN in attrs else None


def storms_in(attributes: Mapping[Any, Any]) -> tuple[KnownStorm, ...]:
    """The storms that the attributes of an initial state name; none where it names none."""
    try:
        return tuple(KnownStorm(**storm) for storm in json.loads(attributes.get(_STORMS, "[]")))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{_STORMS} is not a list of storms: {error}",
            where="initial state",
            remedy="collect the initial state again",
        ) from None


def _attributes(storms: Sequence[KnownStorm], origin: str) -> dict[str, str]:
    return {_STORMS: json.dumps([asdict(storm) for storm in storms]), _ORIGIN: origin}
