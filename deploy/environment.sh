# Sourced by demo.sh and test.sh: a virtual environment in $VENV (default .venv in the clone) with
# the project and the extras given as $1, at the versions of constraints.txt.
# PYTHON chooses the interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-$PWD/.venv}
PYTHON=${PYTHON:-python3}

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: $PYTHON is not Python 3.11 or newer" >&2
    echo "  remedy: install it, or name another interpreter: PYTHON=python3.12 bash $0" >&2
    exit 2
fi

stamp=$VENV/.installed
wanted=$(cat pyproject.toml constraints.txt; echo "$1")
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "Installing into $VENV (a few minutes the first time) ..."
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".$1"
    echo "$wanted" >"$stamp"
fi
