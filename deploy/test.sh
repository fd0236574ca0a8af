#!/usr/bin/env bash
# Everything that is checked before a change lands: style, types, import contracts, tests.
# Options are passed on to pytest: bash deploy/test.sh -k regrid
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[dev,gcs,s3,sources]"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/mypy"
exec "$VENV/bin/python" -m pytest --numprocesses 2 --dist loadfile "$@"
