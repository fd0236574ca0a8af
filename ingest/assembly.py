"""From downloaded byte ranges to one GRIB file in which every message has been checked."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ingest.decode import MessageHeader, open_message, read_header
from ingest.index import GRIB_UNITS, ByteRange, IndexRow
from ingest.sources import AnalysisLocation
from ingest.transfer import ObjectIdentity
from mosaic_core.contract.artifacts import FetchedFile
from mosaic_core.contract.errors import DataError
from mosaic_core.contract.files import sync_directory, write_json_atomic
from mosaic_core.contract.grid import NATIVE_LATITUDE_COUNT, NATIVE_LONGITUDE_COUNT

_MAGIC, _TRAILER = b"GRIB", b"7777"
_EDITION = 2
_OTHER = "the mirror's file and index disagree: run again, or take another mirror"


class Parts:
    """A folder of partial ranges that belong to one version of one object.

    Parts left by an earlier run are kept when the object and its index are still the same,
    whatever the address, else thrown away.
    """

    def __init__(self, folder: Path, identity: ObjectIdentity, index_sha256: str) -> None:
        self.folder = folder
        mark = folder / "object.json"
        state = {"index_sha256": index_sha256, **vars(identity)}
        aside = folder.parent / f".{folder.name}.expected.json"
        write_json_atomic(aside, state)
        if not mark.exists() or mark.read_bytes() != aside.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        os.replace(aside, mark)

    def path(self, span: ByteRange) -> Path:
        """Where the bytes of `span` are collected."""
        return self.folder / f"{span.start}-{span.end}.part"

    def held(self, spans: Iterable[ByteRange]) -> int:
        """Bytes of `spans` that are there already."""
        paths = (self.path(span) for span in spans)
        return sum(path.stat().st_size for path in paths if path.exists())

    def remove(self) -> None:
        """Throw the parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def assemble(
    parts: Parts,
    spans: Sequence[ByteRange],
    rows: Iterable[IndexRow],
    location: AnalysisLocation,
    target: Path,
) -> FetchedFile:
    """Write the messages of `rows`, in file order, to `target`; all of them are sound or none is.

    Raises DataError naming the first message that is damaged or is not what its row says.
    """
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    digest, size, grids = hashlib.sha256(), 0, set[str]()
    try:
        with aside.open("wb") as file:
            for row in sorted(rows, key=lambda row: row.offset):
                content = _cut(parts, spans, row)
                grids.add(check_message(content, row, location).grid_md5)
                _require_one_grid(grids, row, location)
                file.write(content)
                digest.update(content)
                size += len(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(target.parent)
    return FetchedFile(name=target.name, size=size, sha256=digest.hexdigest())


def _cut(parts: Parts, spans: Sequence[ByteRange], row: IndexRow) -> bytes:
    span = next(span for span in spans if span.start <= row.offset and row.end <= span.end)
    with parts.path(span).open("rb") as file:
        file.seek(row.offset - span.start)
        return file.read(row.length)


def _require_one_grid(grids: set[str], row: IndexRow, location: AnalysisLocation) -> None:
    if len(grids) > 1:
        raise DataError(
            "its grid section differs from that of the messages before it",
            where=_place(row, location),
            remedy=_OTHER,
        )


def check_message(content: bytes, row: IndexRow, location: AnalysisLocation) -> MessageHeader:
    """The header of a message that is whole and is the field its index row says, else DataError."""
    where = _place(row, location)
    _require_frame(content, row, where)
    with open_message(content, where) as handle:
        header = read_header(handle)
    faults = _disagreements(header, row, location)
    if faults:
        raise DataError(
            f"the message is not what the index says: {'; '.join(faults)}",
            where=where,
            remedy=_OTHER,
        )
    return header


def _place(row: IndexRow, location: AnalysisLocation) -> str:
    return f"{location.data_url.split('?')[0]} bytes {row.offset}-{row.end} ({row.key})"


def _require_frame(content: bytes, row: IndexRow, where: str) -> None:
    """Magic, edition, the length in section 0 (octets 9-16) and the trailer of a GRIB2 message."""
    sound = (
        len(content) == row.length
        and content[:4] == _MAGIC
        and content[7] == _EDITION
        and int.from_bytes(content[8:16], "big") == row.length
        and content[-4:] == _TRAILER
    )
    if not sound:
        raise DataError(
            "these bytes are not one whole GRIB2 message of that length",
            where=where,
            remedy=_OTHER,
        )


def _disagreements(header: MessageHeader, row: IndexRow, location: AnalysisLocation) -> list[str]:
    expected = {
        "field": (str(header.key), str(row.key)),
        "class": (header.mars_class, row.mars_class),
        "stream": (header.stream, row.stream),
        "type": (header.type, row.type),
        "reference time": (str(header.reference_time), str(location.cycle.init_time)),
        "step": (header.step, row.step),
        "units": (header.units, GRIB_UNITS.get(row.key.param, header.units)),
        "grid": (str(header.shape), str((NATIVE_LATITUDE_COUNT, NATIVE_LONGITUDE_COUNT))),
    }
    return [
        f"{name} is {found}, expected {wanted}"
        for name, (found, wanted) in expected.items()
        if found != wanted
    ]
