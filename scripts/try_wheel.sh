#!/usr/bin/env bash
# Install a wheel into an empty environment, by the commands of "Without a clone" in docs/install.md,
# and use it in empty folders: an own recipe with its reward, the quickstart, the tutorial.
#
#   scripts/try_wheel.sh dist/mgrpo-0.1.0-py3-none-any.whl [all]     all: every step of the quickstart
set -euo pipefail
repository="$(cd "$(dirname "$0")/.." && pwd)"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir "$folder"/{empty,tutorial}
cp "$1" "$folder"
cp -r "$repository/examples/own_reward" "$folder/mine"
steps=(steps=2)
[ "${2:-}" != all ] || steps=()

# The Python that .venv was made with; from here on nothing is taken from the repository.
base="$("$repository/.venv/bin/python" -c 'import sys; print(sys._base_executable)')"
PATH="$folder/.venv/bin:$(dirname "$base"):$PATH"
unset PYTHONPATH VIRTUAL_ENV
export PS4='+ after ${SECONDS} s: '

cd "$folder"
# shellcheck disable=SC2016 # the fences of a page, not commands
sed -n '/^## Without a clone/,/^## /{/^```bash/,/^```/{/^```/!p}}' "$repository/docs/install.md" |
    tee install.sh
bash -ex install.sh >install.log 2>&1 || { tail -n 25 install.log; exit 1; }
grep '^+' install.log

set -x
cd "$folder/empty"
test "$(command -v mgrpo)" = "$folder/.venv/bin/mgrpo"
mgrpo version
mgrpo methods >/dev/null
mgrpo plan quickstart --gpus 8xH100-80GB >/dev/null
mgrpo train quickstart "${steps[@]}"
cd "$folder/mine"
mgrpo check own_reward.yaml
mgrpo train own_reward.yaml steps=2
cd "$folder/tutorial"
python "$repository/scripts/tutorial.py" .
bash -ex commands.sh
: the end
