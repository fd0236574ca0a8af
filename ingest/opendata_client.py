"""Downloading with ECMWF's own client, `ecmwf-opendata`, for those who configure it.

Only the transfer is the client's: what is wanted, whether it is there, every check of every
message and the manifest are as for any mirror. The client passes no time limits, so its session
gets ours; its own reading of an index is not trusted, so messages are counted against ours.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.assembly import Parts
from ingest.index import ByteRange, IndexRow
from ingest.readiness import Inventory
from ingest.transfer import MirrorTrouble, TransferPolicy, public
from mosaic_core.contract.errors import DataError, InputError

if TYPE_CHECKING:
    from ecmwf.opendata import Client

_PAUSE_SECONDS = 5  # between its retries, where the server does not ask for another
_AGAIN = "run again, or name a mirror without ecmwf-opendata"


def retrieve(
    found: Inventory, root: str, parts: Parts, policy: TransferPolicy
) -> tuple[ByteRange, ...]:
    """Fill `parts` with one range for each message of the inventory; the ranges.

    Raises InputError when the package is not installed, MirrorTrouble when the client gives up,
    DataError when it brings other messages than were asked for.
    """
    client = _client(root, policy)
    rows = [*found.rows.values(), *found.statics.values()]
    spans: list[ByteRange] = []
    for level_type in ("sfc", "pl"):
        wanted = sorted(
            (row for row in rows if row.key.levtype == level_type), key=lambda row: row.offset
        )
        with tempfile.TemporaryDirectory(dir=parts.folder) as folder:
            target = Path(folder) / "messages.grib2"
            _download(client, _request(found, wanted), target)
            spans += _distribute(target.read_bytes(), wanted, parts, root)
    return tuple(spans)


def _client(root: str, policy: TransferPolicy) -> Client:
    try:
        from ecmwf.opendata import Client
        from requests.adapters import HTTPAdapter
    except ImportError:
        raise InputError(
            "the package ecmwf-opendata is not installed",
            remedy="pip install 'mosaic-ops[sources]', or name another source",
        ) from None

    class Limited(HTTPAdapter):
        """Time limits on every request of a session whose user sets none."""

        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = (policy.connect_seconds, policy.read_seconds)
            return super().send(*arguments, **options)

    logging.getLogger("multiurl").setLevel(logging.ERROR)
    client = Client(
        source=root,
        infer_stream_keyword=False,
        maximum_retries=policy.attempts,
        retry_after=_PAUSE_SECONDS,
    )
    for scheme in ("https://", "http://"):
        client.session.mount(scheme, Limited())
    return client


def _request(found: Inventory, rows: Sequence[IndexRow]) -> dict[str, Any]:
    """The request that selects `rows`: every parameter at every level among them."""
    moment = found.location.cycle.datetime
    request = {
        "date": f"{moment:%Y-%m-%d}",
        "time": moment.hour,
        "step": found.location.step,
        "type": rows[0].type,
        "stream": found.location.stream,
        "levtype": rows[0].key.levtype,
        "param": sorted({row.key.param for row in rows}),
    }
    levels = sorted({row.key.level for row in rows if row.key.level is not None})
    return request | ({"levelist": levels} if levels else {})


def _download(client: Client, request: dict[str, Any], target: Path) -> None:
    try:
        client.retrieve(request, str(target))
    except Exception as error:  # noqa: BLE001 - requests, urllib3 and the client raise many kinds
        raise MirrorTrouble(
            f"ecmwf-opendata gave up ({type(error).__name__}: {str(error)[:200]})",
            where=public(client.url),
            remedy=_AGAIN,
        ) from None


def _distribute(
    content: bytes, rows: Sequence[IndexRow], parts: Parts, root: str
) -> Iterator[ByteRange]:
    """The messages, which come in the order of `rows`, as parts."""
    messages = list(_cut(content))
    if [len(message) for message in messages] != [row.length for row in rows]:
        raise DataError(
            f"ecmwf-opendata brought {len(messages)} messages of {len(content)} bytes, the index "
            f"lists {len(rows)} of {sum(row.length for row in rows)}",
            where=public(root),
            remedy=_AGAIN,
        )
    for message, row in zip(messages, rows, strict=True):
        span = ByteRange(row.offset, row.end)
        parts.path(span).write_bytes(message)
        yield span


def _cut(content: bytes) -> Iterable[bytes]:
    """Messages by the length in their section 0; what follows no magic stays in one piece."""
    start = 0
    while start < len(content):
        length = int.from_bytes(content[start + 8 : start + 16], "big")
        sound = content[start : start + 4] == b"GRIB" and length > 0
        end = start + length if sound else len(content)
        yield content[start:end]
        start = end
