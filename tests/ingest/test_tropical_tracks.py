"""ECMWF's track file over real HTTP: its address, its absence, half of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.sources import ECMWF_MIRRORS, Source
from ingest.synthetic.mirror import Mirror
from ingest.transfer import TransferPolicy
from ingest.tropical_tracks import fetch_tracks, tracks_url
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import DataError, NotYetAvailable, SourceError

BUFR = Path(__file__).parents[1] / "data" / "ecmwf_ens_tropical_cyclone.bufr"
CYCLE = Cycle.parse("2026-08-20T00Z")
QUICK = TransferPolicy(connect_seconds=1, total_seconds=3, attempts=1)


def test_addresses_follow_the_feed():
    google = ECMWF_MIRRORS[1]
    root = "https://storage.googleapis.com/ecmwf-open-data/20260820"
    assert tracks_url(CYCLE, google) == (
        f"{root}/00z/ifs/0p25/enfo/20260820000000-240h-enfo-tf.bufr"
    )
    assert tracks_url(CYCLE.shift(6), google) == (
        f"{root}/06z/ifs/0p25/enfo/20260820060000-144h-enfo-tf.bufr"
    )


@pytest.fixture
def served(tmp_path):
    """A mirror, and the file of CYCLE on it."""
    (tmp_path / "mirror").mkdir()
    with Mirror(tmp_path / "mirror") as mirror:
        source = Source("local", mirror.url)
        file = tmp_path / "mirror" / tracks_url(CYCLE, source).removeprefix(f"{mirror.url}/")
        file.parent.mkdir(parents=True)
        yield source, file


def test_the_file_arrives_whole(served, tmp_path):
    source, file = served
    file.write_bytes(BUFR.read_bytes())
    fetch_tracks(CYCLE, source, tmp_path / "here" / "tf.bufr")
    assert (tmp_path / "here" / "tf.bufr").read_bytes() == BUFR.read_bytes()


def test_no_storm_no_file(served, tmp_path):
    with pytest.raises(NotYetAvailable):
        fetch_tracks(CYCLE, served[0], tmp_path / "tf.bufr")
    assert not (tmp_path / "tf.bufr").exists()


@pytest.mark.parametrize("content", [b"", b"<html>sorry</html>", BUFR.read_bytes()[:-10]])
def test_half_a_file_and_no_bufr_are_refused(served, tmp_path, content):
    source, file = served
    file.write_bytes(content)
    with pytest.raises(DataError, match="no whole BUFR file"):
        fetch_tracks(CYCLE, source, tmp_path / "tf.bufr")
    assert not (tmp_path / "tf.bufr").exists()


def test_a_dead_mirror_is_given_up(tmp_path):
    with pytest.raises(SourceError):
        fetch_tracks(CYCLE, Source("dead", "http://127.0.0.1:9"), tmp_path / "tf.bufr", QUICK)
