from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

from flows.cli.model import weights as command
from mosaic_core.contract.errors import InputError, ModelError, SourceError
from mosaic_core.model.checkpoint import STATICS, load_model
from mosaic_core.model.config import BUILTIN, ModelConfig
from mosaic_core.model.mosaic import Mosaic
from mosaic_core.model.parameters import PREFIX
from mosaic_core.weights import LOCK, MUTEX, STAGING, check_weights, fetch_weights, read_lock

WEIGHTS = "checkpoints/hres_best.pt"
NAMES = {"hres_best.pt", "norm_stats_hres.npz", STATICS, "hres.safetensors"}
CUT = 3 * 2**20  # where the line drops


def load_hub() -> ModuleType:
    """tests/mosaic_core/hub.py, which pytest's import mode leaves off the path."""
    spec = importlib.util.spec_from_file_location("hub", Path(__file__).with_name("hub.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub"] = module
    spec.loader.exec_module(module)
    return module


hub_module = load_hub()


@pytest.fixture(autouse=True)
def small_hres(monkeypatch: pytest.MonkeyPatch, small_config: ModelConfig) -> None:
    """Stand in for the 214 M parameters of `hres`: the same format, a small network."""
    monkeypatch.setitem(BUILTIN, "hres", small_config)


def torch_bytes(content: object) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published(small_bundle: Path, small_model: Mosaic) -> dict[str, bytes]:
    state = {PREFIX + name: value for name, value in small_model.state_dict().items()}
    more = torch.zeros(2**20)  # the published file also holds more than the parameters
    return {
        WEIGHTS: torch_bytes({"model_state_dict": state, "epoch": 9, "ema": more}),
        "data/norm_stats_hres.npz": (small_bundle / "norm_stats_small.npz").read_bytes(),
        "data/static_vars.npz": (small_bundle / STATICS).read_bytes(),
    }


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[Any]:
    with hub_module.Hub(dict(published)) as server:
        yield server


def test_a_fetch_pins_verifies_and_converts(hub: Any, tmp_path: Path, small_model: Mosaic) -> None:
    lock = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert (lock.revision, lock.commit) == ("main", "a" * 40)
    assert set(lock.files) == NAMES
    assert {entry.verified for entry in lock.files.values()} == {"hub", "converted"}
    assert read_lock(tmp_path) == lock
    assert {path.name for path in tmp_path.iterdir()} == NAMES | {LOCK, MUTEX, "bundle.json"}
    model = load_model(tmp_path, "hres")
    assert all(map(torch.equal, model.parameters(), small_model.parameters()))
    origin = model.provenance
    assert origin is not None
    assert (origin.trained, origin.licence) == (True, "CC-BY-NC-4.0")
    assert "a" * 40 in origin.source
    with safetensors.safe_open(tmp_path / "hres.safetensors", "pt") as copy:
        assert lock.files["hres_best.pt"].sha256 in copy.metadata()["origin"]


def test_a_second_fetch_asks_the_hub_nothing(hub: Any, tmp_path: Path) -> None:
    first = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    hub.requests.clear()
    hub.down = True
    assert fetch_weights(tmp_path, "hres", endpoint=hub.endpoint) == first
    assert hub.requests == []


def test_the_pin_holds_when_the_branch_moves(hub: Any, tmp_path: Path) -> None:
    first = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    hub.commits["main"] = "c" * 40
    (tmp_path / STATICS).unlink()
    with pytest.raises(SourceError, match="has no data/static_vars"):
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)  # the old commit is gone
    hub.commits["old"] = first.commit
    assert fetch_weights(tmp_path, "hres", endpoint=hub.endpoint) == first


def test_another_revision_needs_another_directory(hub: Any, tmp_path: Path) -> None:
    lock = fetch_weights(tmp_path, "hres", revision="v2", endpoint=hub.endpoint)
    assert lock.commit == "b" * 40
    assert fetch_weights(tmp_path, "hres", revision="b" * 40, endpoint=hub.endpoint) == lock
    with pytest.raises(InputError, match="pinned to v2 = bbbb"):
        fetch_weights(tmp_path, "hres", revision="main", endpoint=hub.endpoint)


def test_a_dropped_line_is_resumed_within_the_fetch(hub: Any, tmp_path: Path) -> None:
    hub.break_after[WEIGHTS] = CUT
    fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    spans = [span for name, span in hub.fetched() if name == "hres_best.pt"]
    assert spans == [None, f"bytes={CUT}-"]


def test_a_fetch_that_was_stopped_goes_on_where_it_was(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies in the middle of the file: the next one asks for the rest only."""
    hub.break_after[WEIGHTS] = CUT
    child = os.fork()
    if child == 0:
        import time

        monkeypatch.setattr(time, "sleep", lambda _: os._exit(9))  # dies instead of trying again
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "hres_best.pt").exists()
    fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    spans = [span for name, span in hub.fetched() if name == "hres_best.pt"]
    assert spans == [None, f"bytes={CUT}-"]


def test_of_two_fetches_at_once_the_second_finds_the_files(hub: Any, tmp_path: Path) -> None:
    hub.break_after[WEIGHTS] = CUT  # holds the first up for a second
    with ThreadPoolExecutor(2) as pool:
        fetches = [pool.submit(fetch_weights, tmp_path, "hres", endpoint=hub.endpoint)
                   for _ in range(2)]  # fmt: skip
        first, second = (fetch.result() for fetch in fetches)
    assert first == second == read_lock(tmp_path)
    assert sorted(name for name, span in hub.fetched() if span is None) == sorted(
        Path(path).name for path in hub.files
    )


def test_a_check_waits_for_the_fetch(hub: Any, tmp_path: Path) -> None:
    lock = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    with (tmp_path / MUTEX).open() as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        check = pool.submit(check_weights, tmp_path, "hres")
        with pytest.raises(TimeoutError):
            check.result(timeout=0.5)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert check.result() == lock


def test_parts_of_another_variant_are_kept(hub: Any, tmp_path: Path) -> None:
    part = tmp_path / STAGING / "era5_best.pt.0123"
    part.parent.mkdir()
    part.write_bytes(b"half")
    part.with_name("hres_best.pt.older").write_bytes(b"of an older version")
    fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert list(part.parent.iterdir()) == [part]


def test_a_check_of_no_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        check_weights(tmp_path / "absent", "hres")


def test_bytes_that_are_not_what_the_hub_announced(hub: Any, tmp_path: Path) -> None:
    hub.lie_about.add("data/static_vars.npz")
    with pytest.raises(SourceError, match=r"arrived with SHA-256 .*, the hub says"):
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert not (tmp_path / STATICS).exists()
    hub.lie_about.clear()
    fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)


def test_without_an_announced_digest_the_first_use_is_enforced(hub: Any, tmp_path: Path) -> None:
    path = "data/static_vars.npz"
    hub.plain.add(path)
    lock = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert lock.files[STATICS].verified == "first use"
    (tmp_path / STATICS).write_bytes(b"broken")
    hub.files[path] += b" "
    with pytest.raises(SourceError, match="the lock says"):
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)


def test_a_damaged_file_is_fetched_again(hub: Any, tmp_path: Path) -> None:
    lock = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    (tmp_path / STATICS).write_bytes(b"broken")
    (tmp_path / "hres.safetensors").unlink()
    hub.requests.clear()
    assert fetch_weights(tmp_path, "hres", endpoint=hub.endpoint) == lock
    assert hub.fetched() == [("static_vars.npz", None)]


def test_what_the_hub_does_not_have(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no revision v9"):
        fetch_weights(tmp_path / "a", "hres", revision="v9", endpoint=hub.endpoint)
    del hub.files["data/static_vars.npz"]
    with pytest.raises(SourceError, match=r"has no file data/static_vars\.npz"):
        fetch_weights(tmp_path / "b", "hres", endpoint=hub.endpoint)
    with pytest.raises(InputError, match="no weights of 'mini' are published"):
        fetch_weights(tmp_path / "c", "mini", endpoint=hub.endpoint)


def test_a_hub_that_fails_or_is_away(hub: Any, tmp_path: Path) -> None:
    hub.down = True
    with pytest.raises(SourceError, match="revision main") as refused:
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert "run the same command again" in refused.value.remedy
    with pytest.raises(SourceError, match="revision main"):
        fetch_weights(tmp_path, "hres", endpoint="http://127.0.0.1:9")


def test_weights_that_need_code_are_kept_but_not_read(hub: Any, tmp_path: Path) -> None:
    content = torch.load(BytesIO(hub.files[WEIGHTS]))
    content["args"] = np.random.default_rng(0).bit_generator
    hub.files[WEIGHTS] = torch_bytes(content)
    with pytest.raises(ModelError, match="reading it would run code: it needs numpy"):
        fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert not (tmp_path / "hres.safetensors").exists()
    fetch_weights(tmp_path, "hres", endpoint=hub.endpoint, dangerously_unpickle=True)
    load_model(tmp_path, "hres")  # from the copy, which holds tensors only


def test_check_finds_what_changed(hub: Any, tmp_path: Path) -> None:
    lock = fetch_weights(tmp_path, "hres", endpoint=hub.endpoint)
    assert check_weights(tmp_path, "hres") == lock
    (tmp_path / STATICS).unlink()
    with (tmp_path / "hres.safetensors").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelError) as refused:
        check_weights(tmp_path, "hres")
    assert "static_vars.npz is missing" in refused.value.what
    assert "hres.safetensors has SHA-256" in refused.value.what


def test_check_records_files_that_were_put_there_by_hand(
    published: dict[str, bytes], tmp_path: Path
) -> None:
    for path, content in published.items():
        (tmp_path / Path(path).name).write_bytes(content)
    lock = check_weights(tmp_path, "hres")
    assert set(lock.files) == NAMES
    assert lock.files["hres_best.pt"].verified == "first use"
    (tmp_path / "hres_best.pt").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"hres_best\.pt has SHA-256"):
        check_weights(tmp_path, "hres")


def test_a_lock_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"commit": 3}))
    with pytest.raises(ModelError, match="not a valid lock"):
        check_weights(tmp_path, "hres")


def test_the_command_states_the_licence(hub: Any, tmp_path: Path) -> None:
    arguments = ["fetch", "hres", "--directory", str(tmp_path), "--endpoint", hub.endpoint]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "CC-BY-NC-4.0" in result.output
    assert f"main = commit {'a' * 40}" in result.output
    checked = CliRunner().invoke(command, ["check", "hres", "--directory", str(tmp_path)])
    assert checked.exit_code == 0, checked.output
    assert "digest: hub" in checked.output
