"""The manifest of a published run: every object with its size and digests, written last."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mosaic_core.contract.artifacts import Pointer, Sha256
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CLAIMS = "claims"
_REPAIR = (
    "`mosaic-ops catalog ROOT --rebuild` repairs pointers and index; a manifest comes back with "
    "publishing its cycle again"
)
Model = TypeVar("Model", bound=BaseModel)
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class DamagedError(PublishError):
    """A document was read, and is not what was once written."""


class OtherVersionError(PublishError):
    """A whole document, but of a version of mosaic-ops that this one cannot read: it is neither
    damaged nor ours to replace."""


class Record(BaseModel):
    """A frozen JSON document that readers rely on; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_bytes(self) -> bytes:
        """As published: indented, keys in order, a final newline."""
        content = self.model_dump(mode="json")
        return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Self:
        """Read what `to_bytes` wrote; DamagedError names every fault."""
        return parsed(cls, content, where)


class SealedRecord(Record):
    """A record that nothing else names: it carries the digest of the rest of itself."""

    seal: str = ""

    def to_bytes(self) -> bytes:
        """As published, with its seal."""
        return super(SealedRecord, self._sealed()).to_bytes()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> Self:
        """Read what `to_bytes` wrote; DamagedError names every fault, also a broken seal."""
        found = super().from_bytes(content, where)
        if found != found._sealed():
            raise DamagedError(
                "damaged or edited by hand: its seal does not fit", where=where, remedy=_REPAIR
            )
        return found

    def _sealed(self) -> Self:
        rest = self.model_copy(update={"seal": ""})
        return self.model_copy(update={"seal": digest(Record.to_bytes(rest))})


class ObjectRecord(Record):
    """One object: key below the run's folder, size in bytes, digests."""

    key: str
    size: int = Field(ge=0)
    sha256: Sha256
    md5: Md5


class Manifest(Record):
    """What one run published. `members` and `lead_hours` say how complete it is."""

    schema_version: int = SCHEMA_VERSION
    cycle: str
    run_id: str
    path: str
    members: int = Field(ge=1)
    lead_hours: int = Field(ge=0)
    created_at: datetime
    provenance: dict[str, Any]
    objects: tuple[ObjectRecord, ...]

    @property
    def stores(self) -> list[str]:
        """First parts of the keys: the stores and files that the run holds."""
        return sorted({record.key.split("/", 1)[0] for record in self.objects})

    @property
    def sick_members(self) -> tuple[str, ...]:
        """A line for each member that was quarantined; it is in the forecast store nevertheless."""
        return tuple(map(str, self.provenance.get("member_health", ())))

    @property
    def healthy_members(self) -> int:
        """Members that are healthy to the end of the forecast."""
        return self.members - len(self.sick_members)

    @property
    def bytes(self) -> int:
        """Size of everything."""
        return sum(record.size for record in self.objects)

    @property
    def rank(self) -> tuple[int, datetime]:
        """Order among the runs of one cycle: the more complete, then the later one."""
        return self.members * (1 + self.lead_hours), self.created_at


def parsed(model: type[Model], content: bytes, where: str) -> Model:
    """`content` as `model`; DamagedError, or OtherVersionError as `require_version`."""
    require_version(content, where)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise DamagedError(
            f"not a valid {model.__name__}: {faults}",
            where=where,
            remedy=_REPAIR,
        ) from None


def require_version(content: bytes, where: str) -> None:
    """OtherVersionError when `content` says that it has another schema version than ours."""
    try:
        version = json.loads(content)["schema_version"]
    except (ValueError, TypeError, KeyError):
        return
    if not isinstance(version, int) or version == SCHEMA_VERSION:
        return
    newer = version > SCHEMA_VERSION
    raise OtherVersionError(
        f"written by {'a newer' if newer else 'an older'} mosaic-ops (schema version {version}, "
        f"this one reads {SCHEMA_VERSION})",
        where=where,
        remedy="upgrade mosaic-ops"
        if newer
        else "use the mosaic-ops of that time for it, and publish new cycles to another root",
    )


def digest(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def run_path(cycle: Cycle, run_id: str) -> str:
    """Key of a run's folder below the root."""
    return f"cycles/{cycle.id}/{run_id}"


def claim_key(cycle: Cycle, run_id: str) -> str:
    """Key of the note that a run is being published: retention leaves such a run alone."""
    return f"{CLAIMS}/{cycle.id}.{run_id}.json"


def pointer_to(manifest: Manifest, manifest_sha256: str, token: str) -> Pointer:
    """The pointer that makes readers see this run."""
    return Pointer(
        schema_version=SCHEMA_VERSION,
        cycle=manifest.cycle,
        run_id=manifest.run_id,
        path=manifest.path,
        manifest_sha256=manifest_sha256,
        members=manifest.members,
        lead_hours=manifest.lead_hours,
        published_at=manifest.created_at,
        token=token,
    )
