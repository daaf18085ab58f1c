#!/usr/bin/env bash
# Make .venv-trl, where TRL lives apart from our own packages. Does nothing when it is complete.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=benchmarks/requirements-trl.txt
installed=.venv-trl/requirements-trl.txt # copied last: without it, the folder is half made
if cmp -s "$requirements" "$installed"; then
    exit 0
fi

echo "installing TRL into .venv-trl, a few minutes" >&2
rm -rf .venv-trl
.venv/bin/python -m venv .venv-trl
pip=(.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check --no-input)
# Where pip is configured with an index that has torch's CPU builds, that one is right. PyTorch's
# own is the other place to look.
"${pip[@]}" -r "$requirements" 2>.venv-trl/setup.log ||
    "${pip[@]}" --extra-index-url https://download.pytorch.org/whl/cpu -r "$requirements"
cp "$requirements" "$installed"
