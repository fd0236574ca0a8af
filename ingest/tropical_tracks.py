"""ECMWF's own tropical-cyclone tracks of a cycle (`type=tf`, BUFR): which storms exist.

A convenience: mirrors publish the file after the analyses, and none when there is no storm.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ingest.sources import Source, era_of
from ingest.transfer import TransferPolicy, open_mirror
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.files import write_atomic

_PATIENCE = TransferPolicy(total_seconds=60.0)  # no cycle waits longer for storms' names
_FIRST, _LAST = b"BUFR", b"7777"  # how every message begins and ends


def tracks_url(cycle: Cycle, source: Source) -> str:
    """Address of the ensemble's tracks of `cycle` on `source`."""
    moment = cycle.datetime
    hours = 240 if moment.hour in (0, 12) else 144
    return source.address(
        f"{moment:%Y%m%d}/{moment:%H}z/{era_of(cycle).model_path}/enfo/"
        f"{moment:%Y%m%d%H}0000-{hours}h-enfo-tf.bufr"
    )


def fetch_tracks(
    cycle: Cycle, source: Source, path: Path, policy: TransferPolicy = _PATIENCE
) -> None:
    """Write the tracks of `cycle` to `path`, whole or not at all.

    NotYetAvailable when the source does not have them; SourceError when it does not answer;
    DataError for something else than BUFR, and for half of it.
    """
    url = tracks_url(cycle, source)
    content = asyncio.run(_read(source, url, policy))
    if not (content.startswith(_FIRST) and content.endswith(_LAST)):
        raise DataError(
            f"{len(content)} bytes are no whole BUFR file", where=url, remedy="fetch it again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)


async def _read(source: Source, url: str, policy: TransferPolicy) -> bytes:
    async with open_mirror(source.root, policy) as mirror:
        return await mirror.read(url)
