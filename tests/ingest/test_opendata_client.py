"""ECMWF's own client as a source: it transfers, everything else is as for any mirror."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.archive import archived_times
from ingest.decode import read_headers
from ingest.fetch import DATA, MANIFEST, fetch_analysis
from ingest.intake import take_in
from ingest.sources import OPENDATA_CLIENT, Source, source_named
from ingest.transfer import TransferPolicy
from mosaic_core.contract.errors import DataError, InputError, SourceError


def through_the_client(mirror) -> Source:
    return source_named(f"ecmwf-opendata={mirror.root}")


def test_it_is_a_source_by_name_and_by_address() -> None:
    assert source_named("ecmwf-opendata") is OPENDATA_CLIENT
    chosen = source_named("ecmwf-opendata=http://box/feed")
    assert (chosen.own_client, chosen.root) == (True, "http://box/feed")
    assert not source_named("mine=http://box/feed").own_client


def test_it_brings_the_same_bytes_as_our_own_transfer(
    make_upload, cycle, mirror, tmp_path, policy
) -> None:
    mirror.serve(make_upload(cycle))
    ours = fetch_analysis(cycle, mirror.source, tmp_path / "ours", policy=policy)
    theirs = fetch_analysis(cycle, through_the_client(mirror), tmp_path / "theirs", policy=policy)
    assert theirs.files == ours.files
    assert (theirs.source, theirs.era) == ("ecmwf-opendata", "50r1")
    assert len(list(read_headers(tmp_path / "theirs" / DATA))) == 82
    assert not (tmp_path / "theirs" / "parts").exists()


def test_its_analysis_goes_through_the_gate(make_upload, cycle, mirror, tmp_path, policy) -> None:
    """The made-up fields of this feed are no atmosphere: they must not get in."""
    mirror.serve(make_upload(cycle))
    with pytest.raises(DataError, match="the gate refuses"):
        take_in(
            cycle, [through_the_client(mirror)], policy=policy,
            downloads=tmp_path / "downloads", archive=tmp_path / "analyses.zarr",
        )  # fmt: skip
    assert archived_times(tmp_path / "analyses.zarr").size == 0


def test_every_message_is_held_against_its_row(
    make_upload, cycle, mirror, tmp_path, policy
) -> None:
    upload = make_upload(cycle)
    first, second = upload.place("temperature_500"), upload.place("temperature_850")
    upload.messages[first], upload.messages[second] = (
        upload.messages[second], upload.messages[first],
    )  # fmt: skip
    upload.reindex()
    mirror.serve(upload)
    with pytest.raises(DataError, match=r"not what the index says: field is t (850|500) pl"):
        fetch_analysis(cycle, through_the_client(mirror), tmp_path, policy=policy)
    assert not (tmp_path / MANIFEST).exists()
    assert not (tmp_path / DATA).exists()


def test_a_missing_field_is_not_ready_for_the_client_either(
    make_upload, cycle, mirror, tmp_path, policy
) -> None:
    upload = make_upload(cycle)
    del upload.rows[upload.place("temperature_500")]
    mirror.serve(upload)
    with pytest.raises(SourceError, match="temperature_500"):
        fetch_analysis(cycle, through_the_client(mirror), tmp_path, policy=policy)


def test_a_stalled_body_ends_in_time(
    make_upload, cycle, mirror, answers, tmp_path: Path, policy: TransferPolicy
) -> None:
    mirror.serve(make_upload(cycle))
    mirror.fault("fc.grib2", *[lambda h: h.command == "GET" and answers.stall(1.5)(h)] * 20)
    started = time.monotonic()
    with pytest.raises(SourceError):
        fetch_analysis(
            cycle, through_the_client(mirror), tmp_path, policy=replace(policy, attempts=1)
        )
    assert time.monotonic() - started < 2 * policy.total_seconds
    assert not (tmp_path / DATA).exists()


def test_without_the_package_the_remedy_is_named(
    make_upload, cycle, mirror, tmp_path, policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.serve(make_upload(cycle))
    monkeypatch.setitem(sys.modules, "ecmwf.opendata", None)
    with pytest.raises(InputError, match="not installed") as caught:
        fetch_analysis(cycle, through_the_client(mirror), tmp_path, policy=policy)
    assert "mosaic-ops[sources]" in caught.value.remedy
