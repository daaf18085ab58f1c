#!/usr/bin/env bash
# Look for everything that is in the way of an installation, before anything is downloaded.
#
#   scripts/preflight.sh setup|quickstart|image [cpu|gpu PYTHON]
#
# Exits with 2 if there is a fault. Where all is installed, only memory is looked at. The goal
# "image" installs what runs elsewhere, on a machine that has the GPU.
set -euo pipefail
goal="$1" extra="${2:-}" python="${3:-}"
root="${PREFLIGHT_ROOT:-}" # tests have a /proc and a /sys of their own
exit_code=0

tell() { # fault or warning, what is in the way, and lines that say what to do about it
    printf '%s: %s\n' "$1" "$2" >&2
    printf '    %s\n' "${@:3}" >&2
    [ "$1" = warning ] || exit_code=2
}

# Two engines, the learner and Ray of the quickstart need 6 GiB. A container's limit counts, too.
memory=6
kib="$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' "$root/proc/meminfo" 2>/dev/null || true)"
for bytes in ${kib:+$((kib << 10))} \
    $(cat "$root"/sys/fs/cgroup/{memory.max,memory/memory.limit_in_bytes} 2>/dev/null); do
    [ "$bytes" = max ] || ((bytes >> 30 >= memory)) || memory=$((bytes >> 30))
done
if ((memory < 6)) && [[ $goal = quickstart || -n $extra ]]; then
    tell "$([ "$goal" = quickstart ] && echo fault || echo warning)" \
        "$memory GiB of memory are available; the quickstart needs 6." \
        "Close other programs, or use a larger machine or container."
fi
[ -n "$extra" ] || exit "$exit_code"

name="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
"$python" -c 'import venv, ensurepip' 2>/dev/null || # Debian may ship neither
    tell fault "$name cannot make virtual environments." \
        "Debian, Ubuntu: apt-get install $name-venv"
"$python" -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
    tell fault "$name has no header files (Python.h), with which pycosat is compiled." \
        "Debian, Ubuntu: apt-get install $name-dev"
compilers="Debian, Ubuntu: apt-get install build-essential. Fedora, RHEL: dnf install gcc-c++"
[ -n "$(type -P cc gcc clang)" ] || tell fault "There is no compiler for C." "$compilers"
[ -n "$(type -P c++ g++ clang++)" ] || tell fault "There is no compiler for C++." "$compilers"

disk_needed=6 processors="x86_64|aarch64" # .venv takes 3.2 GiB, and pip needs room to unpack
if [ "$extra" = gpu ]; then
    disk_needed=20 processors="x86_64" # .venv takes some 12 GiB
    driver="$(timeout 20 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1 || true)"
    if [[ ! $driver =~ ^[0-9]+ ]]; then
        tell "$([ "$goal" = image ] && echo warning || echo fault)" "nvidia-smi finds no GPU." \
            "Install the NVIDIA driver (and, in a container, start it with --gpus all), or" \
            "install for the CPU: make setup. To install here what another machine runs, in an" \
            "image or from a login node: make setup EXTRA=gpu GOAL=image"
    elif ((BASH_REMATCH[0] < 580)); then # 580 runs CUDA 13, which torch 2.13 is built for
        tell warning "The NVIDIA driver is ${BASH_REMATCH[0]}; CUDA 13 wants 580 or newer." \
            "Update the driver if torch.cuda.is_available() is false after the installation."
    fi
elif ! "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    tell fault "There is no libnuma.so.1, without which vLLM's CPU build starts no engine." \
        "Debian, Ubuntu: apt-get install libnuma1. Fedora, RHEL: dnf install numactl-libs"
fi

system="$("$python" -c 'import platform; print(platform.platform())')" # with processor and libc
if ! grep -qw avx2 "$root/proc/cpuinfo" 2>/dev/null; then
    system="${system/x86_64-with/x86_64 without AVX2-with}"
fi
[[ $system =~ ^Linux-.*-($processors)-with-glibc2\.(2[89]|[3-9].)$ ]] ||
    tell fault "This is $system." \
        "vLLM and torch are built for Linux with glibc 2.28 or newer, on ${processors/|/ or }" \
        "(x86_64 with AVX2). Use such a machine or container (Debian 10, Ubuntu 20.04, RHEL 8 or" \
        "later; not Alpine), on Windows WSL 2. A virtual machine can pass its host's AVX2 through."

disk_free=$(($(df -Pk . | awk 'END {print $4}') >> 20))
((disk_free >= disk_needed)) ||
    tell fault "$disk_free GiB of disk are free here; the installation needs $disk_needed." \
        "Free $((disk_needed - disk_free)) GiB (\`pip cache purge\` may help), or clone to a" \
        "larger disk. If only the temporary folder is small, set TMPDIR."
exit "$exit_code"
