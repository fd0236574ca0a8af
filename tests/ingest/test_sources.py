from __future__ import annotations

import pytest

from ingest.sources import ECMWF_MIRRORS, ERAS, Source, analysis_files, era_of, source_named
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import InputError, SourceError

AWS = source_named("aws")


@pytest.mark.parametrize(
    ("cycle", "stream", "era"),
    [
        ("2026-05-12T00Z", "oper", "49r1"),
        ("2026-05-11T18Z", "scda", "49r1"),
        ("2026-05-12T06Z", "oper", "50r1"),
        ("2026-11-23T18Z", "oper", "50r1"),
        ("2024-11-12T06Z", "scda", "49r1"),
    ],
)
def test_stream_follows_the_era_not_the_hour(cycle: str, stream: str, era: str) -> None:
    location = analysis_files(Cycle.parse(cycle), AWS)
    assert (location.stream, location.era) == (stream, era)


@pytest.mark.parametrize("day", ["2025-03-01", "2026-05-11", "2026-05-12", "2026-11-23"])
@pytest.mark.parametrize("hour", [0, 6, 12, 18])
@pytest.mark.parametrize("mirror", ["ecmwf", "aws", "google"])
def test_addresses_equal_those_of_ecmwfs_own_client(day: str, hour: int, mirror: str) -> None:
    """The oracle is the `ecmwf-opendata` package; it is asked for addresses only."""
    from ecmwf.opendata import Client

    client = Client(source=mirror, model="ifs", resol="0p25")
    request = {"date": day, "time": hour, "step": 0, "type": "fc", "param": "2t"}
    ours = analysis_files(Cycle.parse(f"{day}T{hour:02d}Z"), source_named(mirror))
    assert client._get_urls(request=request).urls == [ours.data_url]


def test_eras_ascend_and_the_last_is_complete() -> None:
    firsts = [era.first for era in ERAS]
    assert firsts == sorted(set(firsts))
    assert ERAS[-1].completeness == "yes"


@pytest.mark.parametrize("cycle", ["2023-06-01T00Z", "2024-02-10T12Z", "2024-03-01T00Z"])
def test_an_era_without_all_fields_is_refused_with_dates(cycle: str) -> None:
    with pytest.raises(SourceError, match="lack fields") as caught:
        analysis_files(Cycle.parse(cycle), AWS)
    assert "2024-11-12T06Z" in str(caught.value)
    assert cycle in str(caught.value)


def test_before_the_feed_the_answer_names_who_has_it() -> None:
    with pytest.raises(SourceError, match="WeatherBench 2"):
        era_of(Cycle.parse("2021-06-01T00Z"))


def test_a_source_without_its_credential_is_refused() -> None:
    cycle = Cycle.parse("2026-11-23T00Z")
    azure = source_named("azure")
    with pytest.raises(SourceError, match="shared-access-signature"):
        analysis_files(cycle, azure)
    location = analysis_files(cycle, azure.with_query("sig=secret"))
    assert location.data_url.endswith("0h-oper-fc.grib2?sig=secret")
    assert location.index_url.endswith("0h-oper-fc.index?sig=secret")


def test_a_source_that_begins_later_is_refused() -> None:
    young = Source("young", "https://example.org", first=Cycle.parse("2026-01-01T00Z"))
    with pytest.raises(SourceError, match="begins with 2026-01-01T00Z"):
        analysis_files(Cycle.parse("2025-12-31T18Z"), young)


def test_unknown_source_names_the_known() -> None:
    with pytest.raises(InputError, match="azure") as caught:
        source_named("gopher")
    assert all(source.name in str(caught.value) for source in ECMWF_MIRRORS)


def test_forecast_steps_have_their_own_files() -> None:
    location = analysis_files(Cycle.parse("2026-11-23T00Z"), AWS, step=6)
    assert location.data_url.endswith("/20261123/00z/ifs/0p25/oper/20261123000000-6h-oper-fc.grib2")
