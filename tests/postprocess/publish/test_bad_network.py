"""S3 and Google storage behind a bad network: storms, resets, slow lines, expired credentials."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
import tiny
from proxy import Proxy

from mosaic_core.contract.artifacts import Pointer
from mosaic_core.contract.cycle import Cycle
from mosaic_core.contract.errors import PublishError
from postprocess.objects import gcs as gcs_module
from postprocess.objects import s3 as s3_module
from postprocess.objects.root import IMMUTABLE, open_root
from postprocess.publish import publish, published_cycle, read_pointer
from postprocess.verify import verify_store


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait one second for an answer, and longer for that to a large body."""
    monkeypatch.setitem(s3_module._CLIENT, "timeout", "1s")
    monkeypatch.setitem(s3_module._LARGE_CLIENT, "timeout", "30s")
    short = aiohttp.ClientTimeout(total=30, sock_connect=1, sock_read=1)
    monkeypatch.setattr(gcs_module, "_TIMEOUT", short)


def put(folder: Path, address: str, cycle: Cycle = tiny.CYCLE) -> Pointer:
    return publish(tiny.stage(folder, cycle), address, cycle=cycle, run_id="run-1")


@pytest.mark.parametrize("fates", [("503",), ("500", "503", "429"), ("reset",), ("halfway",)])
def test_storms_before_the_store_are_waited_out(
    proxy: Proxy, tmp_path: Path, fates: tuple[str, ...]
) -> None:
    proxy.before = fates
    address = proxy.server.fresh_root()
    put(tmp_path / "s", address)
    assert proxy.spoiled > 5
    proxy.calm()
    assert verify_store(address).faults == ()


def test_stalled_connections_are_given_up(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    proxy.before, proxy.portion = ("stall",), 0.05
    address = proxy.server.fresh_root()
    put(tmp_path / "s", address)
    assert proxy.spoiled > 0
    proxy.calm()
    assert verify_store(address).faults == ()


@pytest.mark.parametrize("fate", ["reset", "cut"])
def test_lost_answers_do_not_make_a_publication_lose_against_itself(
    proxy: Proxy, tmp_path: Path, fate: str
) -> None:
    """The store did it, the answer was lost, the retry meets its own success as a conflict."""
    proxy.after = (fate,)
    address = proxy.server.fresh_root()
    for turn in range(3):
        cycle = tiny.CYCLE.shift(6 * turn)
        assert put(tmp_path / str(turn), address, cycle).cycle == cycle.label
    assert proxy.spoiled > 10
    proxy.calm()
    assert verify_store(address).faults == ()


def test_a_slow_line_is_no_failure(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard takes three seconds, with clients that wait one for the answer to a small one."""
    monkeypatch.setitem(s3_module._CLIENT, "timeout", "1s")
    proxy.bytes_per_second = 1e6
    (tmp_path / "shard").write_bytes(content := bytes(3_000_000))
    address = proxy.server.fresh_root()
    open_root(address).upload("shard", tmp_path / "shard", cache=IMMUTABLE)
    assert open_root(address).read("shard") == content


def test_a_line_that_is_too_slow_is_a_clear_error(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    monkeypatch.setitem(s3_module._RETRY, "max_retries", 1)
    monkeypatch.setitem(s3_module._LARGE_CLIENT, "timeout", "1s")
    monkeypatch.setattr(gcs_module, "_TIMEOUT", aiohttp.ClientTimeout(total=1))
    proxy.bytes_per_second = 1e6
    with pytest.raises(PublishError, match="the store failed") as caught:
        open_root(proxy.server.fresh_root()).write("shard", bytes(3_000_000), cache=IMMUTABLE)
    assert "publish again" in str(caught.value)


def test_a_store_that_is_down_is_a_clear_error(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(s3_module._RETRY, "max_retries", 1)
    proxy.shutdown()
    proxy.server_close()
    with pytest.raises(PublishError, match="the store failed") as caught:
        put(tmp_path / "s", proxy.server.fresh_root())
    assert "publish again" in str(caught.value)


@pytest.mark.parametrize("denial", ["503", "507"])
def test_a_storm_without_end_or_a_full_store_is_a_clear_error(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denial: str
) -> None:
    monkeypatch.setitem(s3_module._RETRY, "max_retries", 2)
    address, older = proxy.server.fresh_root(), tiny.CYCLE.shift(-6)
    put(tmp_path / "old", address, older)
    proxy.deny_after, proxy.denial = proxy.passed + 20, denial
    with pytest.raises(PublishError, match=f"(?s)the store failed.*{denial}"):
        put(tmp_path / "s", address)
    proxy.calm()
    untouched = read_pointer(address)
    assert untouched is not None
    assert untouched.cycle == older.label
    assert put(tmp_path / "s", address).cycle == tiny.CYCLE.label
    assert verify_store(address).faults == ()


@pytest.mark.parametrize("after", [1, 10, 45])
@pytest.mark.parametrize("denial", ["403", "401"])
def test_credentials_that_expire_midway_lose_nothing(
    proxy: Proxy, tmp_path: Path, after: int, denial: str
) -> None:
    address, older = proxy.server.fresh_root(), tiny.CYCLE.shift(-6)
    put(tmp_path / "old", address, older)
    proxy.deny_after, proxy.denial = proxy.passed + after, denial
    with pytest.raises(PublishError, match="credentials are wrong or expired"):
        put(tmp_path / "s", address)
    proxy.calm()
    assert read_pointer(address) is not None
    assert published_cycle(address, older) is not None
    put(tmp_path / "s", address)
    latest = read_pointer(address)
    assert latest is not None
    assert latest.cycle == tiny.CYCLE.label
    assert verify_store(address).faults == ()
