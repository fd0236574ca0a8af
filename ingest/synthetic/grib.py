"""Genuine GRIB2 messages and `.index` rows, laid out like ECMWF's open data.

Regular 0.25 degree grid (or any other global one), CCSDS packing, centre ecmf, local section 1. At
0.25 degrees from 180 E, sections 0 to 3 are a real message's bytes but for its length and date.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import eccodes
import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.grid import STANDARD_GRAVITY
from mosaic_core.contract.variables import CHANNELS, Channel

Float32 = NDArray[np.float32]

_TABLES_VERSION = 32  # what ECMWF's files of 2025 and 2026 say
_PROCESS = 158  # generatingProcessIdentifier of the IFS in 2026
_ACCUMULATION_TEMPLATE = 8
# 12 bits is what real messages of t, q, u, v and gh have; z and w have 16.
_BITS = {"z": 16, "w": 16, "lsm": 8, "r": 8, "vo": 16, "d": 16}
_USUAL_BITS = 12
_HEIGHT_PARAMS = ("2t", "2d", "10u", "10v")  # the parameter itself says the height
_SURFACES = {"msl": "meanSea"}


@dataclass(frozen=True)
class Label:
    """Which field a message holds: shortName, MARS levtype (sfc, pl, sol), level, accumulation."""

    param: str
    levtype: str
    level: int | None = None
    accumulated: bool = False

    @property
    def bits(self) -> int:
        """Bits per value of this parameter in open data."""
        return _BITS.get(self.param, _USUAL_BITS)


@dataclass(frozen=True)
class Identity:
    """What all messages of one file share. `step` in hours."""

    cycle: Cycle
    stream: str
    step: int = 0
    expver: str = "0001"


@dataclass(frozen=True)
class GridLabel:
    """A regular global grid, north to south, eastward from `first_longitude` (degrees)."""

    latitudes: int = 721
    longitudes: int = 1440
    first_longitude: float = 180.0

    @property
    def spacing(self) -> tuple[float, float]:
        """Degrees between rows and between columns."""
        return 180.0 / (self.latitudes - 1), 360.0 / self.longitudes


@dataclass
class GribFile:
    """A GRIB file under construction: its bytes, and the rows of its index."""

    identity: Identity
    content: bytearray = field(default_factory=bytearray)
    rows: list[dict[str, str | int]] = field(default_factory=list)

    def add(self, label: Label, message: bytes) -> None:
        """Append a message and its row."""
        row = _row(self.identity, label)
        row["_offset"], row["_length"] = len(self.content), len(message)
        self.rows.append(row)
        self.content += message

    def index(self) -> bytes:
        """The `.index` beside the file: one JSON object a line."""
        return index_bytes(self.rows)


def index_bytes(rows: Iterable[dict[str, str | int]]) -> bytes:
    """Index rows as ECMWF writes them."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _row(identity: Identity, label: Label) -> dict[str, str | int]:
    moment = identity.cycle.datetime
    row: dict[str, str | int] = {
        "domain": "g",
        "date": f"{moment:%Y%m%d}",
        "time": f"{moment:%H}00",
        "expver": identity.expver,
        "class": "od",
        "type": "fc",
        "stream": identity.stream,
    }
    if label.level is not None:
        row |= {"step": str(identity.step), "levelist": str(label.level), "levtype": label.levtype}
    elif label.accumulated:
        row |= {"levtype": label.levtype, "step": str(identity.step)}
    else:
        row |= {"step": str(identity.step), "levtype": label.levtype}
    return row | {"param": label.param}


class Encoder:
    """Encodes fields of one file; a context manager, because ecCodes handles must be released."""

    def __init__(self, identity: Identity, grid: GridLabel | None = None) -> None:
        self._grid = grid or GridLabel()
        self._template = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
        for key, value in {**_origin(identity), **_geometry(self._grid)}.items():
            eccodes.codes_set(self._template, key, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        eccodes.codes_release(self._template)

    def encode(self, label: Label, values: Float32) -> bytes:
        """One message of a field (latitude, longitude), rows north to south."""
        handle = eccodes.codes_clone(self._template)
        try:
            if label.accumulated:
                eccodes.codes_set(handle, "productDefinitionTemplateNumber", _ACCUMULATION_TEMPLATE)
            _set_field(handle, label)
            eccodes.codes_set(handle, "bitsPerValue", label.bits)
            eccodes.codes_set_values(handle, np.ascontiguousarray(values).ravel())
            return bytes(eccodes.codes_get_message(handle))
        finally:
            eccodes.codes_release(handle)


def _set_field(handle: int, label: Label) -> None:
    if label.levtype == "sfc" and label.param not in _HEIGHT_PARAMS:
        eccodes.codes_set(handle, "typeOfLevel", _SURFACES.get(label.param, "surface"))
        eccodes.codes_set_missing(handle, "scaleFactorOfFirstFixedSurface")
        eccodes.codes_set_missing(handle, "scaledValueOfFirstFixedSurface")
    if label.levtype == "sol":
        eccodes.codes_set(handle, "typeOfLevel", "soilLayer")
    eccodes.codes_set(handle, "shortName", label.param)
    if label.level is not None:
        eccodes.codes_set(handle, "level", label.level)


def _origin(identity: Identity) -> dict[str, str | int]:
    moment = identity.cycle.datetime
    return {
        "centre": "ecmf",
        "tablesVersion": _TABLES_VERSION,
        "setLocalDefinition": 1,
        "localDefinitionNumber": 1,
        "class": "od",
        "type": "fc",
        "stream": identity.stream,
        "expver": identity.expver,
        "significanceOfReferenceTime": 1,
        "productionStatusOfProcessedData": 0,
        "generatingProcessIdentifier": _PROCESS,
        "backgroundProcess": 255,
        "typeOfGeneratingProcess": 2,
        "dataDate": int(f"{moment:%Y%m%d}"),
        "dataTime": moment.hour * 100,
        "step": identity.step,
    }


def _geometry(grid: GridLabel) -> dict[str, str | int | float]:
    rows, columns = grid.spacing
    return {
        "Ni": grid.longitudes,
        "Nj": grid.latitudes,
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": grid.first_longitude,
        "longitudeOfLastGridPointInDegrees": (grid.first_longitude + 360.0 - columns) % 360.0,
        "iDirectionIncrementInDegrees": columns,
        "jDirectionIncrementInDegrees": rows,
        "packingType": "grid_ccsds",
    }


def label_of(channel: Channel, geopotential: str = "z") -> Label:
    """The message that carries a channel; `geopotential` is 'z', or 'gh' for older eras."""
    param = channel.variable.params[0]
    if channel.variable.name == "geopotential":
        param = geopotential
    return Label(param, channel.variable.levtype, channel.level_hpa)


def model_messages(fields: Float32, geopotential: str = "z") -> Iterator[tuple[Label, Float32]]:
    """Label and values of each of the 82 channels (channel, latitude N->S, longitude)."""
    for channel, values in zip(CHANNELS, fields, strict=True):
        label = label_of(channel, geopotential)
        in_metres = label.param == "gh"
        yield label, values / np.float32(STANDARD_GRAVITY) if in_metres else values
