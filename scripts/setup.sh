#!/usr/bin/env bash
# Find a Python 3.11 or 3.12 that runs, and hand over to scripts/install.py.
#
#   PYTHON=/path/to/python scripts/setup.sh [--extra cpu|gpu] [--goal setup|quickstart|image]
set -euo pipefail
cd "$(dirname "$0")/.."

is_supported() {
    [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null
}

runs() {
    [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null
}

python_of_venv() {
    .venv/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null || true
}

find_python() {
    # A version manager's shims exist for versions that are not switched on, and then fail: each
    # candidate is run. The versions that pyenv keeps are the last resort.
    # An existing .venv keeps its Python.
    local candidate
    local candidates=("$(python_of_venv)" python3.11 python3.12 python3 python
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[12].*/bin/python)
    for candidate in "${candidates[@]}"; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    for candidate in "${candidates[@]}"; do
        if runs "$candidate"; then
            echo "$candidate" # too old or too new: the pre-flight says so, with what else is wrong
            return
        fi
    done
}

python="${PYTHON:-$(find_python)}"
if ! runs "$python"; then
    echo "problem: ${python:-no Python 3} cannot be run here; Python 3.11 or 3.12 is needed." >&2
    echo "    Debian 12: apt-get install python3.11 python3.11-venv python3.11-dev" >&2
    echo "    Ubuntu 24.04: the same with 3.12. Or name one: make setup PYTHON=/path/to/python" >&2
    exit 2
fi
exec "$python" -m scripts.install "$@"
