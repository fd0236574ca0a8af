"""What a published store says about its making: CF and ACDD attributes of the whole dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FIXED_ATTRIBUTES: Mapping[str, Any] = {
    "Conventions": "CF-1.12, ACDD-1.3",
    "title": "Mosaic ensemble forecast",
    "summary": (
        "Global ensemble forecast on a regular 1.5 degree grid, made with the Mosaic machine-"
        "learning weather model from ECMWF open-data analyses."
    ),
    "keywords": "weather forecast, ensemble, machine learning, Mosaic, ECMWF open data",
    "creator_name": "Mosaic Ops",
    "creator_type": "group",
    "license": "CC-BY-NC-4.0 (model weights); inputs CC-BY-4.0",
    "attribution": (
        "Contains modified ECMWF open data, (c) European Centre for Medium-Range Weather Forecasts "
        "(ECMWF), www.ecmwf.int, CC-BY-4.0. ECMWF accepts no liability for any use of it."
    ),
    "cdm_data_type": "Grid",
    "standard_name_vocabulary": "CF Standard Name Table v90",
    "geospatial_lat_min": -90.0,
    "geospatial_lat_max": 90.0,
    "geospatial_lat_units": "degrees_north",
    "geospatial_lon_min": 0.0,
    "geospatial_lon_max": 358.5,
    "geospatial_lon_units": "degrees_east",
    "geospatial_bounds_crs": "EPSG:4326",
    "processing_level": "forecast",
}

# Attributes whose value differs from run to run; each store has every one of them.
RUN_ATTRIBUTES = (
    "cycle",
    "run_id",
    "date_created",
    "history",
    "source",
    "model_variant",
    "weights_sha256",
    "code_version",
    "precision",
    "device",
    "batch_size",
    "members",
    "lead_hours",
    "input_analyses",
    "member_health",
    "comment",
    "rounding",
    "time_coverage_start",
    "time_coverage_end",
    "content_key",
)

UNKNOWN_DEVICE = "unknown"  # of forecasts that were made before it was recorded


@dataclass(frozen=True)
class Provenance:
    """Where a forecast comes from. Nothing here changes the bytes of the data objects.

    `input_analyses` has one line per analysis: its time, source and gate verdict.
    `member_health` has one line per unhealthy member; empty when all are healthy.
    `comment` is for the reader's eyes, such as that the weights are random. `batch_size` is how
    many members the network computed at once, where another number gives other last bits;
    `device` is the kind of device that computed them, which decides them too.
    """

    run_id: str
    created: str
    model_variant: str
    weights_sha256: str
    code_version: str
    precision: str = "float32"
    input_analyses: tuple[str, ...] = ()
    member_health: tuple[str, ...] = ()
    comment: str = ""
    batch_size: int = 1
    device: str = UNKNOWN_DEVICE

    def attributes(self) -> dict[str, Any]:
        """As attributes of a store."""
        return {
            "run_id": self.run_id,
            "date_created": self.created,
            "history": f"{self.created} made by mosaic-ops {self.code_version}",
            "source": f"Mosaic {self.model_variant}, weights {self.weights_sha256}",
            "model_variant": self.model_variant,
            "weights_sha256": self.weights_sha256,
            "code_version": self.code_version,
            "precision": self.precision,
            "device": self.device,
            "batch_size": self.batch_size,
            "input_analyses": list(self.input_analyses),
            "member_health": list(self.member_health),
            "comment": self.comment,
        }


def coverage(init_time: np.datetime64, last_lead: np.timedelta64) -> dict[str, str]:
    """Attributes that say which cycle a store is and which valid times it covers (UTC)."""
    start, end = (
        f"{np.datetime_as_string(time, unit='s')}Z" for time in (init_time, init_time + last_lead)
    )
    return {
        "cycle": f"{start[:13]}Z",
        "time_coverage_start": start,
        "time_coverage_end": end,
    }
