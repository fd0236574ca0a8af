#!/usr/bin/env bash
# One whole forecast cycle on a made-up atmosphere: no GPU, no account, no network but the package
# installer. Options are passed on: bash deploy/demo.sh --help
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
exec "$VENV/bin/mosaic-ops" demo "$@"
