"""What the mirror answers to a request for bytes: the whole object, ranges of it, or a refusal."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 1 << 18


class Ranges(StrEnum):
    """What the mirror does with several ranges in one request, or with any."""

    MULTIPART = "multipart"  # 206 multipart/byteranges, like ECMWF's own server
    REFUSE_MULTI = "refuse-multi"  # 400, like Google's storage
    WHOLE_FOR_MULTI = "whole-for-multi"  # 200 with the whole object, like S3
    IGNORED = "ignored"  # 200 with the whole object to every request


@dataclass(frozen=True)
class Stored:
    """What is served under a path: a file or bytes, possibly not all of it."""

    source: Path | bytes
    size: int
    etag: str
    modified: float

    def open(self) -> BinaryIO:
        """The whole content, for reading."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


@dataclass(frozen=True)
class Answer:
    """Status, headers, and the parts of the body: literal bytes or (start, stop) of the object."""

    status: int
    headers: dict[str, str]
    parts: tuple[bytes | tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self.parts)


def answer_bytes(found: Stored, asked: str, support: Ranges) -> Answer:
    """The answer to a request with the Range header `asked` ('' for none) for an object."""
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": found.etag,
        "Last-Modified": formatdate(found.modified, usegmt=True),
    }
    if support is not Ranges.IGNORED:
        headers["Accept-Ranges"] = "bytes"
    whole = Answer(200, headers, ((0, found.size),))
    spans = _spans(asked, found.size)
    if spans is None or support is Ranges.IGNORED:
        return whole
    if not spans:
        return Answer(416, {"Content-Range": f"bytes */{found.size}"})
    if len(spans) == 1:
        start, stop = spans[0]
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
        return Answer(206, headers, (spans[0],))
    if support is Ranges.MULTIPART:
        return _multipart(spans, found.size, headers)
    return whole if support is Ranges.WHOLE_FOR_MULTI else Answer(400, {}, (b"InvalidArgument\n",))


def _spans(asked: str, size: int) -> list[tuple[int, int]] | None:
    """The satisfiable (start, stop) of a Range header; None when it must be ignored (RFC 9110)."""
    unit, _, listed = asked.partition("=")
    if unit.strip() != "bytes":
        return None
    spans = []
    for text in listed.split(","):
        first, dash, last = text.strip().partition("-")
        if not dash or not (first + last).isdecimal():
            return None
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start < stop:
            spans.append((start, stop))
    return spans


def _multipart(spans: list[tuple[int, int]], size: int, headers: dict[str, str]) -> Answer:
    boundary = secrets.token_hex(8)
    parts: list[bytes | tuple[int, int]] = []
    for start, stop in spans:
        lines = (
            f"\r\n--{boundary}",
            "Content-Type: application/octet-stream",
            f"Content-Range: bytes {start}-{stop - 1}/{size}",
            "\r\n",
        )
        parts += ["\r\n".join(lines).encode(), (start, stop)]
    parts.append(f"\r\n--{boundary}--\r\n".encode())
    kind = {"Content-Type": f"multipart/byteranges; boundary={boundary}"}
    return Answer(206, headers | kind, tuple(parts))


def body_blocks(answer: Answer, found: Stored | None, flip: int | None = None) -> Iterator[bytes]:
    """The body in blocks; the byte of the object at offset `flip` comes inverted."""
    for part in answer.parts:
        if isinstance(part, bytes):
            yield part
        elif found is not None:
            yield from _read(found, part, flip)


def _read(found: Stored, span: tuple[int, int], flip: int | None) -> Iterator[bytes]:
    position, stop = span
    with found.open() as file:
        file.seek(position)
        while position < stop:
            block = file.read(min(_BLOCK_BYTES, stop - position))
            if not block:
                return
            if flip is not None and position <= flip < position + len(block):
                changed = bytearray(block)
                changed[flip - position] ^= 0xFF
                block = bytes(changed)
            yield block
            position += len(block)
