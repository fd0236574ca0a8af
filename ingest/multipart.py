"""Several byte ranges in one answer: the multipart/byteranges body of RFC 9110, as it arrives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from mosaic_core.contract.errors import SourceError

_CONTENT_RANGE = re.compile(rb"content-range:\s*bytes (\d+)-(\d+)/(\d+)", re.IGNORECASE)
# The header of a part is a boundary and a few short lines.
_LONGEST_HEADER = 4096


async def byte_pieces(
    blocks: AsyncIterator[bytes], size: int, where: str
) -> AsyncIterator[tuple[int, bytes]]:
    """(offset in the object, bytes) for every piece of every part, in the order of the body.

    `size` is the length of the object. Raises SourceError for parts of an object of another
    length and for what is not such a body; a body that ends early just ends.
    """
    buffer, position, left = b"", 0, 0
    async for block in blocks:
        buffer += block
        while buffer:
            if left == 0:
                header, end, rest = buffer.partition(b"\r\n\r\n")
                if not end:
                    _require_short(header, where)
                    break
                position, left = _span(header, size, where)
                buffer = rest
            piece = buffer[:left]
            if piece:
                yield position, piece
            position, left = position + len(piece), left - len(piece)
            buffer = buffer[len(piece) :]


def _require_short(header: bytes, where: str) -> None:
    if len(header) > _LONGEST_HEADER:
        raise _strange("a part without a header", where)


def _span(header: bytes, size: int, where: str) -> tuple[int, int]:
    found = _CONTENT_RANGE.search(header)
    if found is None:
        raise _strange("a part without a Content-Range", where)
    start, last, total = map(int, found.groups())
    if total != size or not start <= last < size:
        raise _strange(f"a part {start}-{last}/{total} of a file of {size} bytes", where)
    return start, last + 1 - start


def _strange(what: str, where: str) -> SourceError:
    return SourceError(
        f"the answer to several ranges holds {what}",
        where=where,
        remedy="take another mirror with --source, or try later",
    )
