"""The files for machines, judged by the schemas and tools of those who will read them.

systemd's own tool is asked where it is installed; what it would refuse is also refused here by a
check that always runs.
"""

from __future__ import annotations

import json
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


WRITTEN = ("MOSAIC_OPS_DATA_ROOT", "PREFECT_HOME", "TRITON_CACHE_DIR")


def image_environment(target: str) -> dict[str, str]:
    """What the container file sets for an image: of the base, then of its own stage."""
    found: dict[str, str] = {}
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Containerfile").read_text())
    for stage in re.split(r"^FROM ", text, flags=re.M)[1:]:
        if stage.splitlines()[0].endswith((" AS base", f" AS {target}")):
            for line in re.findall(r"^ENV (.*)$", stage, re.M):
                found |= dict(word.split("=", 1) for word in line.split())
    return found


def filled_in(source: Path, folder: Path) -> dict[str, Any]:
    """Our services as docker compose reads `source` when its header is followed."""
    shutil.copy(source, folder / "compose.yaml")
    example = (DEPLOY / "environment.example").read_text()
    secrets = {"POSTGRES_PASSWORD": "secret", "PREFECT_SERVER_API_AUTH_STRING": "u:p"}
    for name, value in secrets.items():
        example = example.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    (folder / ".env").write_text(example)
    words = ("docker-compose", "-f", folder / "compose.yaml", "config", "--format", "json")
    tool = Path(sys.executable).with_name(words[0])
    done = subprocess.run([tool, *words[1:]], capture_output=True, text=True, check=True)
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return {name: each for name, each in services.items() if "mosaic-ops" in each["image"]}


def compose_misplacements(services: dict[str, Any]) -> list[str]:
    """Folders of the effective environment that are on no volume; who knows the database."""
    faults = []
    for name, service in services.items():
        known = image_environment(service["image"][-3:]) | service["environment"]
        kept = {each["target"] for each in service.get("volumes", ())} | {"/data"}  # VOLUME /data
        for variable in WRITTEN:
            folder = Path(known.get(variable, "/data"))
            if not any(folder.is_relative_to(each) for each in kept):
                faults.append(f"{name}: {variable}={folder}")
        if name != "server" and "secret" in known.values():
            faults.append(f"{name}: password of the database")
    return faults


def test_services_write_to_volumes_and_do_not_know_the_database(tmp_path: Path) -> None:
    good = DEPLOY / "compose.yaml"
    services = filled_in(good, tmp_path)
    assert {"server", "deployments", "worker-cpu", "worker-gpu", "deadman"} == set(services)
    assert not compose_misplacements(services)
    worse = changed(good, tmp_path / "worse.yaml", "DATA_ROOT: /data/mosaic", "ALERTS: none")
    worse = changed(worse, tmp_path / "worst.yaml", 'POSTGRES_PASSWORD: ""', "A: b")
    faults = compose_misplacements(filled_in(worse, tmp_path))
    assert "deadman: MOSAIC_OPS_DATA_ROOT=/var/lib/mosaic-ops" in faults
    assert "worker-gpu: password of the database" in faults


def test_pods_write_to_volumes() -> None:
    settings = next(m["data"] for _, m in manifests() if m["kind"] == "ConfigMap")
    for _, manifest in manifests():
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]["containers"][0]
            kept = {mount["mountPath"] for mount in pod["volumeMounts"]}
            used = WRITTEN if "worker" in manifest["metadata"]["name"] else ("PREFECT_HOME",)
            for variable in used:
                assert any(Path(settings[variable]).is_relative_to(each) for each in kept), variable


def test_the_weights_are_one_command() -> None:
    compose = (DEPLOY / "compose.yaml").read_text()
    fetch = re.search(r"^#   docker compose (.*) worker-gpu weights fetch hres$", compose, re.M)
    assert fetch
    assert {"run", "--rm", "--no-deps"} <= set(fetch[1].split())
    kustomization = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()
    assert "exec deploy/worker-cpu -- mosaic-ops weights fetch hres" in kustomization


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
