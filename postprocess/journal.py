"""How far a half-written store is: chunk lengths of every complete lead, one record per lead.

The file is one line (the content key of the store) and then fixed-size records: the length of
every shard's chunk as little-endian uint32, and a CRC-32C. A record is appended after all shards
of its lead were appended, so whatever lies in a shard beyond the last record is thrown away.
"""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.errors import StoreError
from postprocess.shards import CRC_BYTES, with_crc, without_crc

Lengths = NDArray[np.uint32]


class Journal:
    """Records of the complete leads of one store with `shard_count` shards.

    Open, it holds the lock that makes this process the only writer of the store (the kernel lets
    go of it when the process dies). StoreError while another process holds it.
    """

    def __init__(self, path: Path, content_key: str, shard_count: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._head = f"{content_key}\n".encode()
        self._shard_count = shard_count

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise StoreError(
                "another process is writing this store",
                where=str(path),
                remedy="wait for it, or end it if it hangs",
            ) from None

    def start(self) -> None:
        """Begin an empty journal."""
        self._file.truncate(0)
        self._write(self._head)

    def read(self) -> Lengths | None:
        """(lead, shard) lengths of the complete leads; None when this is no journal of ours."""
        self._file.seek(0)
        content = self._file.read()
        if not content.startswith(self._head):
            return None
        records = self._whole_records(content[len(self._head) :])
        return np.array(records, dtype=np.uint32).reshape(len(records), self._shard_count)

    def keep(self, lead_count: int) -> None:
        """Forget every lead after the first `lead_count`."""
        self._file.truncate(len(self._head) + lead_count * self._record_bytes)

    def append(self, lengths: Sequence[int] | Lengths) -> None:
        """Record one more complete lead."""
        self._write(with_crc(np.asarray(lengths, dtype="<u4").tobytes()))

    def close(self, *, remove: bool = False) -> None:
        """Let go of the store; `remove` the file too once the store is whole."""
        if remove:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]

    @property
    def _record_bytes(self) -> int:
        return self._shard_count * 4 + CRC_BYTES

    def _whole_records(self, content: bytes) -> list[NDArray[np.uint32]]:
        records: list[NDArray[np.uint32]] = []
        size = self._record_bytes
        for start in range(0, len(content) - size + 1, size):
            try:
                body = without_crc(content[start : start + size], str(self._path))
            except StoreError:
                break
            records.append(np.frombuffer(body, dtype="<u4"))
        return records


def trim_shard(path: Path, lengths: Lengths) -> int:
    """Leads of this shard whose chunks are whole, at most len(lengths).

    `lengths` (lead,) are the chunk lengths recorded for this shard. A power cut may lose what the
    journal promised: every chunk's own checksum is tested.
    """
    if not path.is_file():
        return 0
    content = path.read_bytes()
    start = 0
    for lead, length in enumerate(lengths):
        try:
            without_crc(content[start : start + int(length)], str(path))
        except StoreError:
            return lead
        start += int(length)
    return len(lengths)


def cut_shard(path: Path, size: int) -> None:
    """Shorten a shard to its first `size` bytes."""
    with path.open("r+b") as file:
        file.truncate(size)
