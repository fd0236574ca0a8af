"""The one place that reads the environment and a TOML file; everything else is handed Settings.

Order of precedence: command-line options, environment variables `MOSAIC_OPS_<NAME>`, the TOML
file, the defaults below. Unknown keys anywhere are refused.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from ingest.sources import NAMED_SOURCES, source_named
from mosaic_core.contract.errors import InputError
from mosaic_core.contract.variants import VARIANTS, Variant
from postprocess.products.requests import DEFAULT_REQUEST, ProductRequest
from postprocess.retention_rules import parse_rules

PREFIX = "MOSAIC_OPS_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"


class Settings(BaseModel):
    """Everything a run needs to know, with defaults that suit one GPU box."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data_root: Path = Field(Path("mosaic-data"), description="folder of downloads, archive, stores")
    published_root: str | None = Field(
        None, description="folder, s3:// or gs:// that readers look at; by default in the data root"
    )
    public_address: str | None = Field(
        None,
        pattern=r"^https?://[^\s|()]+$",
        description="where readers' browsers find the published root; linked from the runs' pages",
    )
    weights_dir: Path | None = Field(
        None, description="folder of the weights; by default `weights` in the data root"
    )
    variant: str = Field("hres", description="era5 (24-h steps), hres (6-h steps) or mini (demo)")
    members: int = Field(24, ge=2, le=200, description="ensemble size")
    lead_hours: int = Field(240, ge=6, le=360, description="length of the forecast in hours")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    batch_size: int | None = Field(None, ge=1, description="members at once; by default what fits")
    precision: Literal["float16", "int8"] = Field(
        "float16", description="matrices on a GPU: float16, or int8 for some (Hopper only)"
    )
    mirrors: tuple[str, ...] = Field(
        ("ecmwf", "google", "aws"),
        min_length=1,
        description="mirrors in order of preference: ecmwf, google, aws, azure, ecmwf-opendata "
        "(through ECMWF's client), or NAME=ADDRESS in ECMWF's layout",
    )
    deadline_hours: float = Field(
        9.0, gt=0, description="hours after the initial time when waiting for an analysis ends"
    )
    forecast_fills: int = Field(
        1,
        ge=0,
        le=3,
        description="analyses before the newest that the 6-h forecast valid then may stand in for; "
        "0 takes analyses only",
    )
    poll_seconds: float = Field(60.0, gt=0, description="pause between two looks at the mirrors")
    rounding: Literal["default", "none"] = Field(
        "default", description="bit rounding of the stored forecast: by the table, or none"
    )
    restart_steps: int | None = Field(
        None,
        ge=1,
        description="steps between two restart states of the rollout; by default as often as "
        "costs less than 3 % of the time",
    )
    minimum_members: int | None = Field(
        None, ge=2, description="healthy members a publication needs; by default half of them"
    )
    products: ProductRequest = Field(
        DEFAULT_REQUEST,
        description="stations, events, levels of the products: the table [products], or JSON",
    )
    notice: str | None = Field(
        None, description="text that goes on every figure and into every store's metadata"
    )

    objective_hours: float = Field(
        8.0, gt=0, description="service objective: published this many hours after the initial time"
    )
    catchup_hours: float = Field(
        48.0, ge=6, description="cycles older than this are not made up for; the mirrors keep 72 h"
    )
    attempts: int = Field(3, ge=1, description="runs of one cycle before an engineer must look")
    rollout_deployment: str | None = Field(
        None, description="Prefect deployment for the GPU stage; by default in the same process"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="json: a line an event with its cycle, stage and run, for a log store"
    )
    alert_webhook: SecretStr | None = Field(
        None, description="address that alerts are posted to as JSON (Slack understands it)"
    )
    alert_webhook_file: Path | None = Field(
        None, description="file that holds that address, for secrets mounted as files"
    )
    gpu_command: str = Field(
        "mosaic-ops", description="how `mosaic-ops` is typed for the GPU machine: stands in alerts"
    )
    minimum_free_gb: float = Field(
        20.0, ge=0, description="free space in the data root below which an alert is raised"
    )
    keep_downloads_hours: float = Field(
        72.0, ge=0, description="age at which retention deletes fetched GRIB files"
    )

    keep_published: tuple[str, ...] = Field(
        (),
        description="how long stores stay published, over the defaults (forecast and points 30 "
        "days, ensemble 366): forecast=90d, points=40n (newest cycles) or both, 30d,100n; other= "
        "is every kind without a rule, no limit is for ever; with spaces in the environment",
    )

    @field_validator("keep_published")
    @classmethod
    def _readable_rules(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_rules(rules)
        except InputError as error:
            raise ValueError(f"{error.what}: {error.remedy}") from None
        return rules

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, name: str) -> str:
        if name not in VARIANTS:
            raise ValueError(f"unknown variant {name!r}, choose one of {', '.join(VARIANTS)}")
        return name

    @field_validator("mirrors")
    @classmethod
    def _known_mirrors(cls, mirrors: tuple[str, ...]) -> tuple[str, ...]:
        known = {source.name for source in NAMED_SOURCES}
        unknown = [text for text in mirrors if "=" not in text and text not in known]
        if unknown:
            raise ValueError(
                f"unknown mirrors {', '.join(unknown)}: choose from {', '.join(sorted(known))}, "
                "or give NAME=ADDRESS"
            )
        try:
            for text in mirrors:
                source_named(text)
        except InputError as error:
            raise ValueError(f"{error.what}: {error.remedy}") from None
        return mirrors

    @field_validator("alert_webhook", "alert_webhook_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        """Files of secrets and manifests have the key also where there is nothing to say."""
        return (value.strip() or None) if isinstance(value, str) else value

    @field_validator("alert_webhook")
    @classmethod
    def _known_address(cls, address: SecretStr | None) -> SecretStr | None:
        from flows.watch.delivery import REMEDY, is_understood

        if address is not None and not is_understood(address.get_secret_value()):
            raise ValueError(f"no service takes this address, give {REMEDY}")
        return address

    @model_validator(mode="after")
    def _whole_steps(self) -> Settings:
        step = VARIANTS[self.variant].step_hours
        if self.lead_hours % step:
            raise ValueError(
                f"lead_hours {self.lead_hours} is not a whole number of {step}-h steps"
            )
        if self.products.window_hours % step:
            raise ValueError(
                f"products.window_hours {self.products.window_hours} is not a whole number of "
                f"{step}-h steps"
            )
        return self

    @property
    def model_variant(self) -> Variant:
        """Step, history and spacing of the chosen variant."""
        return VARIANTS[self.variant]

    @property
    def steps(self) -> int:
        """Model steps that reach `lead_hours`."""
        return self.model_variant.steps_for(self.lead_hours)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The members, 0-based."""
        return tuple(range(self.members))

    @property
    def archive(self) -> Path:
        """The 1.5 degree analysis archive."""
        return self.data_root / "analyses.zarr"

    @property
    def fills(self) -> Path:
        """Forecasts that stand in for missing analyses, laid out like the archive."""
        return self.data_root / "fills.zarr"

    @property
    def downloads(self) -> Path:
        """GRIB messages as fetched, one folder per cycle."""
        return self.data_root / "downloads"

    @property
    def staging(self) -> Path:
        """Stores being written; no reader looks here."""
        return self.data_root / "staging"

    @property
    def locks(self) -> Path:
        """One lock file per cycle."""
        return self.data_root / "locks"

    @property
    def alerts(self) -> Path:
        """One file per alert that was raised."""
        return self.data_root / "alerts"

    @property
    def receipts(self) -> Path:
        """What each stage of each cycle did."""
        return self.data_root / "receipts"

    @property
    def published(self) -> str:
        """Root of the published stores: a folder or a bucket's address."""
        return self.published_root or str(self.data_root / "published")

    @property
    def weights(self) -> Path:
        """Folder of the weights bundle."""
        return self.weights_dir or self.data_root / "weights"


def load_settings(config: Path | None = None, **options: Any) -> Settings:
    """Settings from options (None means not given), environment, TOML file and defaults.

    Raises InputError that lists every unknown key and every bad value with its origin.
    """
    environment = _from_environment()
    named = os.environ.get(CONFIG_VARIABLE)
    path = config or (Path(named) if named else None)
    given = {key: value for key, value in options.items() if value is not None}
    file = _from_toml(path) if path else {}
    merged = {**file, **environment, **given}
    table = file.get("products")
    if isinstance(table, dict) and isinstance(environment.get("products"), dict):
        merged["products"] = {**table, **environment["products"]}
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise InputError(
            f"settings are not valid: {faults}",
            where=str(path or "options and environment"),
            remedy="`mosaic-ops settings` lists every setting with its meaning and default",
        ) from None


def _from_environment() -> dict[str, Any]:
    found = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE
    }
    if "products" in found:
        found["products"] = _json(found["products"])
    if "mirrors" in found:
        found["mirrors"] = tuple(found["mirrors"].split(","))  # type: ignore[assignment]
    if "keep_published" in found:
        found["keep_published"] = tuple(found["keep_published"].split())  # type: ignore[assignment]
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(
            f"not valid JSON: {error}",
            where=f"{PREFIX}PRODUCTS",
            remedy='write what the table [products] would hold, as {"spectra_levels": [500]}',
        ) from None


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            f"cannot read the configuration: {error.strerror}",
            where=str(path),
            remedy=f"check --config and {CONFIG_VARIABLE}",
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8: {error.reason} at byte {error.start}",
            where=str(path),
            remedy="save the file as UTF-8",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"not valid TOML: {error}", where=str(path), remedy="correct the file"
        ) from None
