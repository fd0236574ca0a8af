"""Which reader opens a GRIB file of the user's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.cfgrib_reader import cfgrib_headers, cfgrib_messages
from ingest.decode import ROWS, Field, MessageHeader, read_headers, read_messages

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """One way to read a GRIB file: its headers, and the messages whose header is wanted."""

    name: str
    headers: Callable[[Path], Iterator[MessageHeader]]
    messages: Callable[[Path, Callable[[MessageHeader], bool]], Iterator[Field]]


ECCODES = Reader("ecCodes", read_headers, read_messages)
CFGRIB = Reader("cfgrib", cfgrib_headers, cfgrib_messages)


def reader_of(path: Path) -> Reader:
    """ecCodes where every message is a latitude-longitude grid row by row, else cfgrib.

    Raises DataError for damage: no reader is asked to look past that.
    """
    layouts = {header.layout for header in read_headers(path)}
    reader = ECCODES if layouts <= {ROWS} else CFGRIB
    _LOG.info("%s (%s) is read with %s", path, ", ".join(sorted(layouts)), reader.name)
    return reader
