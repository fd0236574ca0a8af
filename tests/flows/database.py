"""A PostgreSQL of one's own for a test, when the machine has the Debian package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.orchestration.server import free_port

FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=60"


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; None when PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server with its data in `folder`; yields the address for Prefect."""
    where = binaries()
    assert where is not None, "PostgreSQL is not installed"
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    owner: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = ["runuser", "-u", "postgres", "--"]
        account = pwd.getpwnam("postgres")
        for each in (folder, data):
            os.chown(each, account.pw_uid, account.pw_gid)
    start = [*owner, str(where / "pg_ctl"), "-D", str(data), "-w", "-t", "120"]
    _run([*owner, str(where / "initdb"), "-D", str(data), "-A", "trust", "-U", "prefect", "-N"])
    options = f"-p {port} -h 127.0.0.1 -k {folder} {FAST}"
    _run([*start, "-l", str(folder / "log"), "-o", options, "start"])
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        _run([*start, "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter; sockets have a limit of 107 characters."""
    with tempfile.TemporaryDirectory(prefix="mops") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, cwd="/tmp", stdout=subprocess.DEVNULL)
