"""The files for machines, judged by the schemas and tools of those who will read them.

systemd's own tool is asked where it is installed; what it would refuse is also refused here by a
check that always runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = ("1.31", "1.34")  # the oldest release with support when this was written, and a newer
UNITS = sorted((*(DEPLOY / "systemd").glob("*.service"), *(DEPLOY / "systemd").glob("*.timer")))
DIRECTIVES = {
    "Unit": {"Description", "After", "Wants"},
    "Service": {
        "Type", "User", "EnvironmentFile", "Environment", "ExecStart", "Restart", "RestartSec",
        "KillMode", "TimeoutStopSec", "NoNewPrivileges", "PrivateTmp", "ProtectSystem",
        "ReadWritePaths",
    },
    "Timer": {"OnCalendar", "Persistent"},
    "Install": {"WantedBy"},
}  # fmt: skip


def said_by(*command: str | Path, **environment: str) -> str:
    """What a tool that ends with an error says; nothing when it ends well and is quiet."""
    tool = Path(sys.executable).with_name(str(command[0]))
    words = [str(tool) if tool.exists() else str(command[0]), *map(str, command[1:])]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0 or told, words
    return told if done.returncode != 0 else ""


def changed(source: Path, target: Path, old: str, new: str) -> Path:
    """A copy with one thing wrong."""
    text = source.read_text()
    assert old in text, old
    target.write_text(text.replace(old, new, 1))
    return target


def compose_faults(path: Path) -> str:
    return said_by("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_compose_fits_the_specification(tmp_path: Path) -> None:
    good = DEPLOY / "compose.yaml"
    assert not compose_faults(good)
    for old, new in (("restart: always", "restrat: always"), ("retries: 20", "retries: [20]")):
        assert compose_faults(changed(good, tmp_path / "compose.yaml", old, new))


def test_docker_compose_itself_reads_it(tmp_path: Path) -> None:
    good = DEPLOY / "compose.yaml"
    secrets = {"POSTGRES_PASSWORD": "p", "PREFECT_SERVER_API_AUTH_STRING": "u:p"}

    def config(path: Path, **environment: str) -> str:
        words = ("docker-compose", "--profile", "lab", "-f", path, "config", "--quiet")
        return said_by(*words, **environment)

    assert not config(good, **secrets)
    assert "required variable POSTGRES_PASSWORD" in config(
        good, **{**secrets, "POSTGRES_PASSWORD": ""}
    )
    wrong = changed(good, tmp_path / "compose.yaml", "postgres: {condition", "postgras: {condition")
    assert "depends on undefined service" in config(wrong, **secrets)
    wanted = set(re.findall(r"\$\{(\w+)", good.read_text()))
    assert wanted == set(secrets), "variables that the page on compose must name"
    example = (DEPLOY / "environment.example").read_text()
    assert all(re.search(rf"^{name}=", example, re.M) for name in wanted)


def manifests() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += [(path.name, each) for each in yaml.safe_load_all(path.read_text())]
    return found


@pytest.mark.parametrize("release", KUBERNETES)
def test_kubernetes_knows_every_field(release: str) -> None:
    for _, manifest in manifests():
        kubernetes_validate.validate(manifest, release, strict=True)
    worker = next(m for _, m in manifests() if m["metadata"]["name"] == "worker-gpu")
    worker["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, release, strict=True)


def test_the_container_file_passes_the_linter(tmp_path: Path) -> None:
    good = DEPLOY / "Containerfile"
    assert not said_by("hadolint", good)
    worse = (("'libc6-dev=2.36-9*'", "libc6-dev"), ("WORKDIR /app", "WORKDIR app"))
    for old, new in worse:
        assert "DL3" in said_by("hadolint", changed(good, tmp_path / "Containerfile", old, new))


def unknown_directives(text: str) -> list[str]:
    """Lines of a unit that are no directive of their section."""
    section, faults = "", []
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key = line.partition("=")[0]
            faults += [line] if key not in DIRECTIVES.get(section, ()) else []
    return faults


def systemd_faults(unit: Path, folder: Path) -> str:
    """What systemd says of a unit whose program is there, where systemd is installed."""
    name = unit.name.replace("@.", "@gpu.")
    text = unit.read_text().replace("/opt/mosaic-ops/bin/mosaic-ops", "/bin/true")
    (folder / name).write_text(text)
    service = folder / name.replace(".timer", ".service")
    if not service.exists():
        service.write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    if shutil.which("systemd-analyze") is None:
        return ""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(folder / name)],
        capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C"},
    )  # fmt: skip
    return "\n".join(line for line in done.stderr.splitlines() if name in line)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_directive(unit: Path, tmp_path: Path) -> None:
    assert not unknown_directives(unit.read_text())
    assert not systemd_faults(unit, tmp_path)


def test_a_misspelt_directive_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    server = DEPLOY / "systemd" / "mosaic-ops-server.service"
    wrong = changed(server, tmp_path / "wrong" / server.name, "RestartSec", "RestartSecs")
    assert unknown_directives(wrong.read_text()) == ["RestartSecs=5"]
    installed = shutil.which("systemd-analyze") is not None
    assert ("RestartSecs" in systemd_faults(wrong, tmp_path)) == installed
