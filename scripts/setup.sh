#!/usr/bin/env bash
# Find a Python 3.11 to 3.13 that runs, and hand over to scripts/install.py.
#
#   PYTHON=/path/to/python scripts/setup.sh [--extra cpu|gpu] [--goal setup|quickstart|image]
set -euo pipefail
cd "$(dirname "$0")/.."

# An existing .venv keeps its Python. Each candidate is run: a version manager's shims exist for
# versions that are not switched on, and then fail. The versions that pyenv keeps come last.
of_venv="$(.venv/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null || true)"
candidates=("$of_venv" python3.11 python3.12 python3.13 python3 python
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
is_supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
for python in "${candidates[@]}"; do
    if "$python" -c "$is_supported" 2>/dev/null; then
        exec "$python" -m scripts.install "$@"
    fi
done
printf '%s\n' >&2 \
    "fault: Python 3.11, 3.12 or 3.13 is needed; ${PYTHON:-what is here} is none that runs." \
    "    Debian 12: apt-get install build-essential libnuma1 python3.11-dev python3.11-venv" \
    "    Ubuntu 24.04: the same with 3.12, Debian 13: with 3.13. Or name one:" \
    "    make setup PYTHON=/path/to/python"
exit 2
