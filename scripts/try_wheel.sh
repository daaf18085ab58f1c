#!/usr/bin/env bash
# Try a wheel without the repository: in folders that hold one example and the tutorial's files, with
# the packages of .venv.
#
#   scripts/try_wheel.sh dist/mgrpo-0.1.0-py3-none-any.whl
set -euo pipefail
cd "$(dirname "$0")/.."
repository="$PWD"
python="$repository/.venv/bin/python"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

"$python" -m pip install --quiet --no-deps --target "$folder/site" "$1"
cp -r examples/own_reward "$folder/mine"
cd "$folder/mine"
export PYTHONPATH="$folder/site"
export PATH="$folder/site/bin:$PATH"
"$python" -c "import mgrpo, sys; sys.exit(not mgrpo.__file__.startswith('$folder'))"

set -x
mgrpo version
mgrpo methods >/dev/null
mgrpo plan quickstart --gpus 8xH100-80GB >/dev/null
mgrpo check own_reward.yaml
mkdir "$folder/tutorial"
"$python" "$repository/scripts/tutorial.py" "$folder/tutorial"
cd "$folder/tutorial"
set +x
PATH="$PATH:$repository/.venv/bin" bash -exc 'PS4="+ after \${SECONDS} s: "; . ./commands.sh; : the end'
