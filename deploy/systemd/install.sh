#!/usr/bin/env bash
# Services of one box: user, folders, a password, units; then pools and deployments. Safe to repeat.
# The package must be in /opt/mosaic-ops (deploy/runbook.md). Run as root. With ROOT=FOLDER all is
# written below it, and services are started only with START=yes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT=${ROOT:-}
BINARY=$ROOT/opt/mosaic-ops/bin/mosaic-ops
ENVIRONMENT=$ROOT/etc/mosaic-ops/environment
COMMAND=$ROOT/usr/local/bin/mosaic-ops

if [ ! -x "$BINARY" ]; then
    echo "error: $BINARY is not there" >&2
    echo "  remedy: python3 -m venv /opt/mosaic-ops; /opt/mosaic-ops/bin/pip install ." >&2
    exit 2
fi
mkdir -p "$ROOT/etc/mosaic-ops" "$ROOT/var/lib/mosaic-ops" "$ROOT/etc/systemd/system" \
    "${COMMAND%/*}"
if [ ! -f "$ENVIRONMENT" ]; then
    password=$(head -c 18 /dev/urandom | base64 | tr '+/' '-_')
    umask 077
    sed -E "s,^(PREFECT_SERVER_API_AUTH_STRING|PREFECT_API_AUTH_STRING)=.*,\1=mosaic:$password," \
        ../environment.example >"$ENVIRONMENT"
    umask 022
    echo "made $ENVIRONMENT with a password for the interface"
fi
cat >"$COMMAND" <<'END'
#!/bin/sh
# What is typed here runs as the services do: their user, their environment, in their folder.
exec systemd-run --quiet --wait --pipe --uid=mosaic -p WorkingDirectory=/var/lib/mosaic-ops \
    -p EnvironmentFile=/etc/mosaic-ops/environment /opt/mosaic-ops/bin/mosaic-ops "$@"
END
chmod 755 "$COMMAND"
install -m 644 ./*.service ./*.timer "$ROOT/etc/systemd/system"
if [ -n "$ROOT" ] && [ "${START:-no}" != yes ]; then
    echo "written below $ROOT; no service was started"
    exit 0
fi
id mosaic >/dev/null 2>&1 || useradd --system --home-dir /var/lib/mosaic-ops mosaic
chown -R mosaic: "$ROOT/var/lib/mosaic-ops"
chown mosaic: "$ENVIRONMENT"
systemctl daemon-reload
systemctl enable --now mosaic-ops-server.service
deployed=no
for _ in $(seq 60); do  # the first start of the server makes its database
    if "$COMMAND" deploy; then
        deployed=yes
        break
    fi
    sleep 5
done
if [ "$deployed" != yes ]; then
    echo "error: the pools and deployments were not made; no worker was started" >&2
    echo "  remedy: journalctl -u mosaic-ops-server, then this script again" >&2
    exit 1
fi
systemctl enable --now mosaic-ops-worker@cpu.service mosaic-ops-worker@gpu.service \
    mosaic-ops-deadman.timer
echo "http://127.0.0.1:4200 shows the runs; the password stands in $ENVIRONMENT"
