"""Where an analysis comes from: mirrors, dated eras of ECMWF's layout, addresses. Pure tables.

Facts of the open-data feed, each with its date: 06/18 UTC were published as stream `scda` until
IFS cycle 50r1 (2026-05-12 06 UTC) and as `oper` since; the `/ifs/` path segment came on
2024-02-29; thirteen levels with vertical velocity are certain from 49r1 (2024-11-12 06 UTC);
geopotential `z` came beside `gh` with 50r1. Data (c) ECMWF, CC-BY-4.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, SourceError

ATTRIBUTION = (
    "Contains ECMWF open data, (c) European Centre for Medium-Range Weather Forecasts (ECMWF), "
    "www.ecmwf.int, CC-BY-4.0. ECMWF accepts no liability for errors, omissions or availability."
)


class Completeness(StrEnum):
    """Whether an era's step-0 files carry all 82 fields on 0.25 degrees."""

    YES = "yes"
    UNPROVEN = "unproven"
    NO = "no"


@dataclass(frozen=True)
class Era:
    """One layout of the feed, valid from `first` until the next era begins.

    `off_hours_stream` is the stream of 06 and 18 UTC. `geopotential` lists the shortNames that
    the era carries on pressure levels. `note` says what is known of the fields.
    """

    name: str
    first: Cycle
    model_path: str
    off_hours_stream: str
    geopotential: tuple[str, ...]
    completeness: Completeness
    note: str


ERAS = (
    Era("0p4-beta", Cycle.parse("2023-01-18T00Z"), "0p4-beta", "scda", ("gh",), Completeness.NO,
        "0.4 degrees, nine levels, no vertical velocity"),
    Era("0p25-trial", Cycle.parse("2024-02-01T00Z"), "0p25", "scda", ("gh",), Completeness.NO,
        "nine levels, no vertical velocity"),
    Era("ifs-0p25-nine-levels", Cycle.parse("2024-02-29T00Z"), "ifs/0p25", "scda", ("gh",),
        Completeness.NO, "nine levels, no vertical velocity"),
    Era("ifs-0p25-thirteen-levels", Cycle.parse("2024-03-05T06Z"), "ifs/0p25", "scda", ("gh",),
        Completeness.UNPROVEN,
        "thirteen levels; vertical velocity is not documented before 2024-11-12, "
        "the index of each cycle decides"),
    Era("49r1", Cycle.parse("2024-11-12T06Z"), "ifs/0p25", "scda", ("gh",), Completeness.YES,
        "all 82 fields"),
    Era("50r1", Cycle.parse("2026-05-12T06Z"), "ifs/0p25", "oper", ("z", "gh"), Completeness.YES,
        "all 82 fields, geopotential as z"),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One mirror of the open-data layout.

    `first` is the first cycle it holds; `keep_hours` how long it keeps one (None: for good).
    `earliest_minutes` after the initial time there is no use in asking. `multi_range` says that
    one request may ask for several byte ranges. `query` is appended to
    every address (an access token); `credential` names what `query` must hold, if anything.
    `own_client` says that ECMWF's package `ecmwf-opendata` transfers the data.
    """

    name: str
    root: str
    first: Cycle = ERAS[0].first
    keep_hours: int | None = None
    earliest_minutes: int = 0
    multi_range: bool = False
    query: str = ""
    credential: str = ""
    own_client: bool = False

    def with_query(self, query: str) -> Source:
        """The same mirror with `query` appended to every address."""
        return replace(self, query=query)

    def address(self, path: str) -> str:
        """The URL of `path` below the root."""
        suffix = f"?{self.query}" if self.query else ""
        return f"{self.root.rstrip('/')}/{path}{suffix}"


# Step 0 is disseminated at T+5:45 and open an hour later; a quarter of an hour of grace.
_EARLIEST = 390
ECMWF_MIRRORS = (
    Source("ecmwf", "https://data.ecmwf.int/forecasts", keep_hours=72,
           earliest_minutes=_EARLIEST, multi_range=True),
    Source("google", "https://storage.googleapis.com/ecmwf-open-data", earliest_minutes=_EARLIEST),
    Source("aws", "https://ecmwf-forecasts.s3.eu-central-1.amazonaws.com",
           earliest_minutes=_EARLIEST),
    Source("azure", "https://ai4edataeuwest.blob.core.windows.net/ecmwf",
           earliest_minutes=_EARLIEST, credential="a shared-access-signature token"),
)  # fmt: skip
# Never a default: it knows no time limits of its own and is slower on the clouds.
OPENDATA_CLIENT = Source("ecmwf-opendata", "https://data.ecmwf.int/forecasts", keep_hours=72,
                         earliest_minutes=_EARLIEST, own_client=True)  # fmt: skip
NAMED_SOURCES = (*ECMWF_MIRRORS, OPENDATA_CLIENT)


@dataclass(frozen=True)
class AnalysisLocation:
    """The two objects that hold one step of a cycle on one source."""

    cycle: Cycle
    source: str
    data_url: str
    index_url: str
    stream: str
    era: str
    step: int


def source_named(text: str, sources: tuple[Source, ...] = NAMED_SOURCES) -> Source:
    """The source of that name, or NAME=ADDRESS of anything laid out like ECMWF's feed.

    `ecmwf-opendata=ADDRESS` reads that address with ECMWF's client. InputError names the sources
    that exist, and what is wrong with a NAME=ADDRESS.
    """
    name, given, address = text.partition("=")
    if given:
        if not (name and _is_web_address(address)):
            raise InputError(
                f"the source {name!r} is not NAME=ADDRESS",
                remedy="give a name, and an address that begins with http:// or https://",
            )
        return Source(name, address, own_client=name == OPENDATA_CLIENT.name)
    for source in sources:
        if source.name == name:
            return source
    raise InputError(
        f"unknown source {name!r}",
        remedy=f"choose one of {', '.join(source.name for source in sources)}",
    )


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def era_of(cycle: Cycle) -> Era:
    """The layout in force at `cycle`; SourceError before the first."""
    for era in reversed(ERAS):
        if cycle >= era.first:
            return era
    raise SourceError(
        f"ECMWF open data begins with {ERAS[0].first}",
        where=f"cycle {cycle}",
        remedy="take this cycle from a WeatherBench 2 store (2016-01-01 to 2023-01-10)",
    )


def stream_of(cycle: Cycle, era: Era) -> str:
    """The stream that carries the high-resolution forecast of that hour."""
    return "oper" if cycle.datetime.hour in (0, 12) else era.off_hours_stream


def analysis_files(cycle: Cycle, source: Source, *, step: int = 0) -> AnalysisLocation:
    """Addresses of the GRIB file and the index of `step` hours of `cycle` on `source`.

    Raises SourceError when the era cannot hold the 82 fields, when the source's archive begins
    later, and when the source needs a credential that is not there.
    """
    era = era_of(cycle)
    refusal = _refusal(cycle, source, era)
    if refusal:
        raise refusal
    stream = stream_of(cycle, era)
    moment = cycle.datetime
    stem = (
        f"{moment:%Y%m%d}/{moment:%H}z/{era.model_path}/{stream}/"
        f"{moment:%Y%m%d%H}0000-{step}h-{stream}-fc"
    )
    return AnalysisLocation(
        cycle, source.name, source.address(f"{stem}.grib2"), source.address(f"{stem}.index"),
        stream, era.name, step,
    )  # fmt: skip


def _refusal(cycle: Cycle, source: Source, era: Era) -> SourceError | None:
    where = f"cycle {cycle} on {source.name}"
    if era.completeness is Completeness.NO:
        complete = next(era for era in ERAS if era.completeness is Completeness.YES)
        return SourceError(
            f"the files of era {era.name} lack fields that the model needs: {era.note}",
            where=where,
            remedy=f"open data is complete from {complete.first}; WeatherBench 2 stores end "
            "2023-01-10, nothing open fills the time between",
        )
    if cycle < source.first:
        return SourceError(
            f"this source begins with {source.first}", where=where, remedy="choose another source"
        )
    if source.credential and not source.query:
        return SourceError(
            f"this source needs {source.credential}",
            where=where,
            remedy="set it in the settings (Source.with_query) or choose another source",
        )
    return None
