#!/usr/bin/env bash
# A Ray cluster on machines that you reach by ssh, without Slurm, Kubernetes or a cloud.
#
#   cluster/ssh.sh setup  HOSTS    copy this clone to every host and install it there
#   cluster/ssh.sh up     HOSTS    start Ray on every host, with a token
#   cluster/ssh.sh tunnel HOSTS    bring the head's dashboard and job server to 127.0.0.1:8265
#   cluster/ssh.sh status HOSTS    the nodes that Ray sees
#   cluster/ssh.sh down   HOSTS    end Ray on every host; this ends all of your runs there
#
# HOSTS is a file with a line per host, "HOST ROLE [ADDRESS]": HOST as ssh knows it, ROLE learner,
# rollout or any, ADDRESS where the others reach it (default: what its name stands for). The first
# line is the head. Lines that begin with # are skipped. Example:
#
#   gpu1.example.org learner 10.0.0.1
#   gpu2.example.org rollout 10.0.0.2
#
# MGRPO_DIR is the clone's folder on the hosts, under the home folder (default mgrpo-code); runs go
# to MGRPO_RUNS_ROOT (see docs/guides/cluster.md), which all hosts have to share.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,20s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -eq 2 ] || usage
action=$1
[ -f "$2" ] || { echo "There is no file of hosts $2." >&2 && exit 2; }

dir=${MGRPO_DIR:-mgrpo-code}
port=${MGRPO_PORT:-6379}
extra=${MGRPO_EXTRA:-gpu}
ssh_options=(-o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15)

hosts=() roles=() addresses=()
while read -r host role address _; do
    case $host in '' | '#'*) continue ;; esac
    case ${role:=any} in
        learner | rollout | any) ;;
        *) echo "$2: the role of $host is $role; it must be learner, rollout or any." >&2 && exit 2 ;;
    esac
    hosts+=("$host") roles+=("$role") addresses+=("${address:-${host#*@}}")
done <"$2"
[ ${#hosts[@]} -gt 0 ] || { echo "$2 names no host." >&2 && exit 2; }
head=${hosts[0]}
head_address=${addresses[0]}

on() { # host, command: run it there, from the clone's folder
    # shellcheck disable=SC2029  # the command is meant to be put together here
    ssh "${ssh_options[@]}" "$1" "cd $dir && $2"
}

setup() {
    for host in "${hosts[@]}"; do
        echo "== $host"
        rsync -az --delete --exclude=/.git --exclude='/.venv*' --exclude=/runs --exclude=/models_cache --exclude='__pycache__' \
            ./ "$host:$dir/"
        on "$host" "scripts/setup.sh --extra $extra"
    done
}

give_token() { # host: the token travels by standard input, never as an argument that ps shows
    on "$1" 'umask 077 && mkdir -p ~/.ray && cat >~/.ray/auth_token' <"$HOME/.ray/auth_token"
}

up() {
    .venv/bin/ray get-auth-token --generate >/dev/null
    local environment="export PATH=\$PWD/.venv/bin:\$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
    for index in "${!hosts[@]}"; do
        local host=${hosts[$index]} role=${roles[$index]} labels=""
        [ "$role" = any ] || labels=" --labels=role=$role"
        give_token "$host"
        if [ "$index" -eq 0 ]; then
            on "$host" "$environment; ray start --head --node-ip-address=$head_address --port=$port --dashboard-host=127.0.0.1$labels"
        else
            on "$host" "$environment; ray start --node-ip-address=${addresses[$index]} --address=$head_address:$port$labels"
        fi
    done
    echo "up: ${#hosts[@]} hosts. Next: cluster/ssh.sh tunnel $1, and in another terminal"
    echo "  mgrpo check RECIPE --address http://127.0.0.1:8265"
    echo "  mgrpo submit RECIPE --address http://127.0.0.1:8265 --env MGRPO_RUNS_ROOT=/shared/mgrpo"
}

tunnel() {
    echo "http://127.0.0.1:8265 is $head's dashboard and job server; Ctrl-C closes it"
    exec ssh "${ssh_options[@]}" -N -L 127.0.0.1:8265:127.0.0.1:8265 "$head"
}

status() {
    on "$head" "RAY_AUTH_MODE=token .venv/bin/ray status --address=$head_address:$port"
}

down() {
    local failed=0
    for ((index = ${#hosts[@]} - 1; index >= 0; index--)); do # the head last
        on "${hosts[$index]}" ".venv/bin/ray stop" || { echo "${hosts[$index]} did not answer" >&2 && failed=1; }
    done
    return "$failed"
}

case $action in
    setup) setup ;;
    up) up "$2" ;;
    tunnel) tunnel ;;
    status) status ;;
    down) down ;;
    *) usage ;;
esac
