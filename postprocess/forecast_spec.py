"""What a forecast store holds, and the identity of its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.contract.schema import GRID_COORDINATES
from postprocess.layout import QUANTIZATION, Sizes
from postprocess.provenance import FIXED_ATTRIBUTES, Provenance, coverage


@dataclass(frozen=True)
class ForecastSpec:
    """What a forecast store holds. `lead_times` ascend; the first is 0, the analysis itself.

    `rounding` is 'default' (postprocess.rounding) or 'none'.
    """

    init_time: np.datetime64
    numbers: tuple[int, ...]
    lead_times: tuple[np.timedelta64, ...]
    provenance: Provenance
    rounding: str = "default"

    @property
    def sizes(self) -> Sizes:
        """Lengths of the dims that differ from run to run."""
        return Sizes(len(self.numbers), len(self.lead_times))

    @property
    def lead_hours(self) -> list[int]:
        """Lead times in hours."""
        return [int(lead / np.timedelta64(1, "h")) for lead in self.lead_times]

    @property
    def content_key(self) -> str:
        """SHA-256 of all that decides the bits of the data: a half-written store with another
        key is not continued."""
        made = asdict(self.provenance)
        decisive = (
            "model_variant", "weights_sha256", "code_version", "precision", "batch_size", "device",
        )  # fmt: skip
        facts = {
            "init_time": str(self.init_time.astype("datetime64[h]")),
            "numbers": list(self.numbers),
            "lead_hours": self.lead_hours,
            "rounding": self.rounding,
            "input_analyses": list(self.provenance.input_analyses),
            **{name: made[name] for name in decisive},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def attributes(self) -> dict[str, Any]:
        """Attributes of every store of this run."""
        return {
            **FIXED_ATTRIBUTES,
            **self.provenance.attributes(),
            **coverage(self.init_time, self.lead_times[-1]),
            "members": list(self.numbers),
            "lead_hours": self.lead_hours,
            "rounding": self.rounding,
            "content_key": self.content_key,
        }

    @property
    def open_sizes(self) -> dict[str, int]:
        """Lengths of the dims that the templates leave open."""
        return {"number": len(self.numbers), "lead_time": len(self.lead_times)}

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Stored values of every coordinate, by name."""
        start = self.init_time.astype("datetime64[h]").astype(np.int64)
        leads = np.array(self.lead_hours, dtype=np.int64)
        return {
            "init_time": np.array([start]),
            "number": np.array(self.numbers, dtype=np.int64),
            "lead_time": leads,
            "valid_time": (start + leads)[None],
            QUANTIZATION: np.array(0, dtype=np.int32),
            **GRID_COORDINATES,
        }
