"""The files for machines: containers, Kubernetes, systemd, the environment, the runbook."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flows.cli.main import cli
from flows.settings import PREFIX, Settings
from postprocess.retention import GRACE
from tests.flows.database import binaries, postgres, short_folder

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROOT = DEPLOY.parent
OURS = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}


def check_command(words: list[str]) -> None:
    """`mosaic-ops WORDS` is a command with these options; AssertionError says what is not."""
    command: click.Command = cli
    context = click.Context(cli, info_name="mosaic-ops")
    while isinstance(command, click.Group):
        assert words, "a command is missing"
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_parser(context).parse_args(list(words))


def test_the_check_refuses_what_is_not_there() -> None:
    check_command(["worker", "gpu", "--health-port", "1"])
    with pytest.raises(AssertionError):
        check_command(["wroker"])
    with pytest.raises(click.NoSuchOption):
        check_command(["worker", "gpu", "--health"])


def manifests() -> list[dict[str, Any]]:
    found = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        found += [each for each in yaml.safe_load_all(path.read_text()) if each]
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod spec of everything that runs."""
    for each in manifests():
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield each["metadata"]["name"], spec["template"]["spec"]


def test_pods_are_not_root_pinned_and_run_commands_that_exist() -> None:
    found = dict(pods())
    assert set(found) == {"server", "worker-cpu", "worker-gpu", "deadman"}
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in pod["containers"]:
            check_command(container["args"])
            assert re.search(r":\d+\.\d+\.\d+", container["image"]), name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"], name
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}, name


def test_what_pods_refer_to_is_there() -> None:
    names = {(each["kind"], (each.get("metadata") or {}).get("name")) for each in manifests()}
    for name, pod in pods():
        for source in pod["containers"][0]["envFrom"]:
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    assert (kind, source[key]["name"]) in names, name
        claims = [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
        assert all(("PersistentVolumeClaim", c["claimName"]) in names for c in claims if c)
    for each in manifests():
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"] == labels


def test_the_gpu_worker_gets_one_gpu_and_the_example_secret_is_empty() -> None:
    worker = dict(pods())["worker-gpu"]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert worker["nodeSelector"]
    kept = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert set(kept) == files - {"kustomization.yaml", "secret.example.yaml"}
    secret = next(each for each in manifests() if each["kind"] == "Secret")
    values = "".join(value for value in secret["stringData"].values())
    assert values == "postgresql+asyncpg://prefect:PASSWORD@postgres:5432/prefect"


def test_compose_refers_to_what_is_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    for name, service in services.items():
        assert re.search(r":\d[\w.-]*$", service["image"]), f"{name} is not pinned"
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"], name
        if service["image"].startswith("mosaic-ops") and "entrypoint" not in service:
            check_command(service["command"])
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    text = (DEPLOY / "compose.yaml").read_text()
    assert not re.search(r'PASSWORD: (?!\$\{|"")', text)


def test_the_container_file_is_pinned_and_does_not_run_as_root() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    stages = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert stages == ["python:3.12.12-slim-bookworm", "base", "base"]
    assert lines.count("USER 10001") == 2
    assert sum(line.startswith("HEALTHCHECK") for line in lines) == 2
    for line in lines:
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
        if line.startswith(("CMD", "ENTRYPOINT")) and "python" not in line:
            words = yaml.safe_load(line.split(maxsplit=1)[1])
            if line.startswith("CMD") and words != ["--help"]:
                check_command(words)


def units() -> list[Path]:
    return sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", units(), ids=lambda path: path.name)
def test_units_start_commands_that_exist_as_their_own_user(unit: Path) -> None:
    text = unit.read_text()
    start = re.search(r"^ExecStart=/opt/mosaic-ops/bin/mosaic-ops (.*)$", text, re.M)
    assert start, unit.name
    check_command(shlex.split(start[1].replace("%i", "gpu").replace("%H", "box")))
    assert "User=mosaic" in text
    assert "EnvironmentFile=/etc/mosaic-ops/environment" in text
    assert "Type=oneshot" in text or "Restart=always" in text


def variables(text: str) -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.M))


def test_the_environment_has_no_unknown_setting_and_no_secret() -> None:
    text = (DEPLOY / "environment.example").read_text()
    named = variables(text)
    assert {each for each in named if each.startswith(PREFIX)} <= OURS
    for secret in ("PREFECT_SERVER_API_AUTH_STRING", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        assert re.search(rf"^#?{secret}=$", text, re.M), secret
    config = next(each for each in manifests() if each["kind"] == "ConfigMap")["data"]
    assert {each for each in config if each.startswith(PREFIX)} <= OURS


def install(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(DEPLOY / "systemd" / "install.sh")],
        env={**os.environ, "ROOT": str(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installer_makes_a_password_once_and_keeps_it_to_itself(tmp_path: Path) -> None:
    missing = install(tmp_path)
    assert missing.returncode == 2
    assert "remedy:" in missing.stderr
    binary = tmp_path / "opt" / "mosaic-ops" / "bin" / "mosaic-ops"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    said = install(tmp_path)
    assert said.returncode == 0, said.stderr
    made = tmp_path / "etc" / "mosaic-ops" / "environment"
    assert made.stat().st_mode & 0o077 == 0
    password = re.search(
        r"^PREFECT_SERVER_API_AUTH_STRING=mosaic:(\S{24})$", made.read_text(), re.M
    )
    assert password
    assert f"\nPREFECT_API_AUTH_STRING=mosaic:{password[1]}\n" in made.read_text()
    assert password[1] not in said.stdout + said.stderr
    kept = made.read_text()
    assert install(tmp_path).returncode == 0
    assert made.read_text() == kept
    written = {path.name for path in (tmp_path / "etc" / "systemd" / "system").iterdir()}
    assert written == {path.name for path in (DEPLOY / "systemd").iterdir()} - {"install.sh"}


def test_the_command_of_the_box_runs_as_the_services_do(tmp_path: Path) -> None:
    """As root with nothing set, `mosaic-ops status` would look at an empty folder."""
    binary = tmp_path / "opt" / "mosaic-ops" / "bin" / "mosaic-ops"
    runner = tmp_path / "bin" / "systemd-run"
    for path, text in ((binary, "#!/bin/sh\n"), (runner, '#!/bin/sh\necho "$@"\n')):
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    assert install(tmp_path).returncode == 0
    said = subprocess.run(
        [tmp_path / "usr" / "local" / "bin" / "mosaic-ops", "status", "--cycles", "3"],
        env={"PATH": f"{runner.parent}:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "--uid=mosaic" in said
    assert "EnvironmentFile=/etc/mosaic-ops/environment" in said
    assert "WorkingDirectory=/var/lib/mosaic-ops" in said, "where `rebuild` may write"
    assert said.endswith("/opt/mosaic-ops/bin/mosaic-ops status --cycles 3\n")


@pytest.mark.parametrize(("good_at", "code"), [(3, 0), (61, 1)])
def test_the_installer_ends_well_only_with_deployments(
    good_at: int, code: int, tmp_path: Path
) -> None:
    """The service user runs `deploy`: it may not be able to read the clone, nor needs to."""
    tools = tmp_path / "tools"
    tools.mkdir()
    log = tmp_path / "log"
    deploy = f'[ "$(grep -c " deploy" {log})" -ge {good_at} ]'
    for name in ("systemctl", "chown", "id", "sleep", "systemd-run"):
        after = deploy if name == "systemd-run" else ""
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n{after}\n')
        (tools / name).chmod(0o755)
    binary = tmp_path / "opt" / "mosaic-ops" / "bin" / "mosaic-ops"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    done = install(tmp_path, START="yes", PATH=f"{tools}:/usr/bin:/bin")
    said = log.read_text()
    assert done.returncode == code, done.stderr
    assert str(DEPLOY) not in said, "a file of the clone is named"
    assert said.count(" deploy") == min(good_at, 60)
    assert ("mosaic-ops-worker@gpu" in said) == (code == 0)
    assert ("remedy: journalctl" in done.stderr) == (code == 1)


def blocks_of_the_runbook() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (DEPLOY / "runbook.md").read_text(), re.S)


def test_the_database_is_saved_and_brought_back_as_the_runbook_says(tmp_path: Path) -> None:
    """Where PostgreSQL is installed; the lines are there everywhere."""
    blocks = blocks_of_the_runbook()
    save = next(block for block in blocks if "pg_dump" in block).splitlines()[:2]
    restore = next(block for block in blocks if "pg_restore" in block)
    assert save[0].startswith("DATABASE=$(sed")
    if binaries() is None:
        return
    environment = tmp_path / "environment"
    with short_folder() as folder, postgres(folder / "pg") as address:
        environment.write_text(f"PREFECT_API_DATABASE_CONNECTION_URL={address}\n")
        lines = [
            *save, 'psql -q "$DATABASE" -c "drop table before"', restore,
            'psql -qtc "select count(*) from before" "$DATABASE"',
        ]  # fmt: skip
        script = "\n".join(lines).replace("/etc/mosaic-ops/environment", str(environment))
        before = save[0].replace("/etc/mosaic-ops/environment", str(environment))
        fill = 'psql -q "$DATABASE" -c "create table before as select 7 as a"'
        done = subprocess.run(
            ["bash", "-euc", f"{before}\n{fill}\n{script}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


def test_the_pages_say_that_published_stores_go_in_two_steps() -> None:
    hours = GRACE.total_seconds() / 3600
    row = next(
        line
        for line in (DEPLOY / "runbook.md").read_text().splitlines()
        if line.startswith("| alert DISK")
    )
    readme = " ".join((ROOT / "README.md").read_text().split())
    for text in (row, readme):
        assert "announced" in text
        assert f"by the next `retain` {hours:g} h later" in text


COMPUTE = {"run", "canary", "rebuild"}


def in_containers(text: str) -> list[tuple[str, list[str]]]:
    """Container and words of every `docker compose run`, `exec` and `kubectl exec`."""
    found = re.findall(r"compose\.yaml run [-\w ]*?(worker-\w+) ([^`\n]+)", text)
    found += re.findall(r"compose\.yaml exec (\S+) mosaic-ops ([^`\n]+)", text)
    found += re.findall(r"kubectl -n mosaic-ops exec deploy/(\S+) -- mosaic-ops ([^`\n]+)", text)
    return [(container, shlex.split(words)) for container, words in found]


def test_what_computes_is_typed_into_the_container_with_the_gpu() -> None:
    found = in_containers((DEPLOY / "runbook.md").read_text())
    assert len(found) >= 5
    for container, words in found:
        assert container in dict(pods())
        check_command(words)
        assert (container == "worker-gpu") == (words[0] in COMPUTE), words
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    config = next(each for each in manifests() if each["kind"] == "ConfigMap")["data"]
    for environment in (compose["worker-cpu"]["environment"], config):
        typed = environment["MOSAIC_OPS_GPU_COMMAND"] + " run 2026-11-23T00Z"
        assert in_containers(typed) == [("worker-gpu", ["run", "2026-11-23T00Z"])]


def test_the_idle_pod_of_the_runbook_sleeps_with_the_gpu() -> None:
    text = next(block for block in blocks_of_the_runbook() if "kubectl" in block)
    patch = yaml.safe_load(shlex.split(text.splitlines()[0])[-1])
    (idle,) = patch["spec"]["template"]["spec"]["containers"]
    (worker,) = dict(pods())["worker-gpu"]["containers"]
    assert idle["name"] == worker["name"], "the key by which Kubernetes merges"
    merged = worker | idle
    assert (merged["command"], merged["args"]) == (["sleep"], ["3600"])
    assert merged["livenessProbe"] is None
    assert merged["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_every_command_of_the_runbook_exists() -> None:
    text = (DEPLOY / "runbook.md").read_text()
    quoted = re.findall(r"`(?:\S*/)?mosaic-ops ([^`]+)`", text)
    blocks = re.findall(r"^(?:\S+=\S+ )?(?:\S*/)?mosaic-ops (.+)$", text, re.M)
    assert len(quoted) + len(blocks) > 20
    for line in (*quoted, *blocks):
        check_command(shlex.split(line))
