"""What the stages hand to each other: small typed records, never arrays except ForecastStep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mosaic_core.contract.errors import DataError, StoreError
from mosaic_core.contract.files import write_json_atomic

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ForecastStep:
    """All members of a run at one lead, in physical SI units.

    `fields` is float32 (number, channel, latitude, longitude), latitude south to north and
    longitude 0..358.5 eastward; every map is contiguous. Step 0 is the analysis, the same for
    every member and perhaps one array seen many times. The array belongs to the producer: whoever
    keeps it beyond the call copies it, nobody writes to it.
    """

    init_time: np.datetime64
    step: int
    lead_time: np.timedelta64
    numbers: tuple[int, ...]
    channels: tuple[str, ...]
    fields: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.numbers), len(self.channels))
        if self.fields.ndim != 4 or self.fields.shape[:2] != expected:
            raise StoreError(
                f"fields have shape {self.fields.shape}, expected (number, channel, latitude, "
                f"longitude) = ({expected[0]}, {expected[1]}, ...)",
                where=f"forecast step {self.step}",
            )

    def channel(self, name: str) -> NDArray[np.float32]:
        """One channel of every member, (number, latitude, longitude)."""
        return self.fields[:, self.channels.index(name)]


class _Record(BaseModel):
    """A frozen JSON record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json_atomic(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read back what `write` wrote; DataError names the file and every fault."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            )
            raise DataError(
                f"not a valid {cls.__name__}: {faults}",
                where=str(path),
                remedy="delete the file and run the command again",
            ) from None


class FetchedFile(_Record):
    """One file on disk: name relative to the manifest, size in bytes, SHA-256."""

    name: str
    size: int = Field(ge=0)
    sha256: Sha256


class FetchManifest(_Record):
    """One analysis as fetched: where from, under which era's layout, and the files' digests."""

    cycle: str
    source: str
    era: str
    data_url: str
    index_url: str
    etag: str | None = None
    last_modified: str | None = None
    first_seen: datetime | None = None
    fetched_at: datetime
    files: tuple[FetchedFile, ...]


class StoreRef(_Record):
    """A store on disk or in a bucket and the digest of its content."""

    address: str
    sha256: Sha256


class Pointer(_Record):
    """`latest.json`: the newest published cycle. `token` is new for every move of the pointer."""

    schema_version: int = 1
    cycle: str
    run_id: str
    path: str
    manifest_sha256: Sha256
    members: int = Field(ge=1)
    lead_hours: int = Field(ge=0)
    published_at: datetime
    token: str
