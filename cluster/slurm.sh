#!/usr/bin/env bash
# A run on a Slurm cluster: Ray over the job's nodes, then `mgrpo submit` to it.
#
#   sbatch cluster/slurm.sh qwen2.5_math_7b steps=200            from the repository's root
#   sbatch --nodes=3 --requeue cluster/slurm.sh RECIPE [key=value ...]
#
# The first MGRPO_LEARNER_NODES nodes (default 1) hold the learner, the others the engines; on one
# node they share it. The clone, its .venv (make setup EXTRA=gpu) and MGRPO_RUNS_ROOT must be on
# storage that all nodes see. A job that Slurm ends or requeues resumes from its newest checkpoint.
#SBATCH --job-name=mgrpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mgrpo-%j.log
# Forty minutes before the time is over the run is stopped: it ends its update and writes a checkpoint.
#SBATCH --signal=B:TERM@2400
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: sbatch cluster/slurm.sh RECIPE [key=value ...]" >&2
    exit 2
fi
recipe=$1
shift
run=${MGRPO_RUN:-$(basename "${recipe%.yaml}")} # the same name resumes the run

# sbatch copies this file elsewhere, so the repository is the folder of submission.
cd "${MGRPO_DIR:-${SLURM_SUBMIT_DIR:?run this with sbatch}}"
bin=$PWD/.venv/bin
export PATH=$bin:$PATH
export MGRPO_RUNS_ROOT=${MGRPO_RUNS_ROOT:-$PWD}
learner_nodes=${MGRPO_LEARNER_NODES:-1}
gpus=${MGRPO_GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-8}} # of each node
start_deadline_s=${MGRPO_START_DEADLINE_S:-300}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
read -r -d '' -a addresses < <(
    srun --nodes=1 --ntasks=1 --nodelist="$head" sh -c 'hostname --ip-address; hostname -I'
) || true
head_ip=
for candidate in "${addresses[@]}"; do
    case $candidate in
        127.* | *:*) ;; # a node's name may stand for its loopback; IPv6 would need brackets
        *) head_ip=$candidate && break ;;
    esac
done
if [ -z "$head_ip" ]; then
    echo "$head has no IPv4 address that other nodes reach; it has: ${addresses[*]:-none}" >&2
    exit 1
fi

# Several jobs may share a node: each has ports and a folder of its own.
offset=$((SLURM_JOB_ID % 5000))
port=$((20000 + offset))
dashboard_port=$((26000 + offset))
agent_port=$((32000 + offset % 700)) # takes jobs on the head; below the system's own ports
address=http://127.0.0.1:$dashboard_port
temp_dir=${MGRPO_TEMP:-/tmp}/mgrpo-$SLURM_JOB_ID # short: Unix sockets allow 107 bytes

# Nobody else on the cluster can join or submit: a token that only this user can read.
token_dir=$(mktemp -d "$MGRPO_RUNS_ROOT/.token-$SLURM_JOB_ID-XXXXXX") # mktemp makes it 0700
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$token_dir/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token_dir/token
export RAY_ADDRESS=$head_ip:$port RAY_USAGE_STATS_ENABLED=0

steps=()
# shellcheck disable=SC2329  # called by the traps
stop_ray() {
    local code=$?
    # Each srun step is one node's Ray: ending the step ends everything in it.
    for step in "${steps[@]}"; do
        kill "$step" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$token_dir"
    if [ "$code" -eq 0 ]; then # else somebody wants to read Ray's logs in there
        timeout 60 srun --ntasks-per-node=1 --overlap rm -rf "$temp_dir" || true # on every node
    else
        echo "Ray's logs are in $temp_dir on each node" >&2
    fi
}
trap stop_ray EXIT

start_node() { # number of the node, then further arguments of `ray start`
    local number=$1 role=rollout
    shift
    [ "$number" -lt "$learner_nodes" ] && role=learner
    # Since Slurm 22.05 srun does not inherit --cpus-per-task, and would bind Ray to one core.
    srun --nodes=1 --ntasks=1 --nodelist="${nodes[$number]}" --overlap \
        --cpus-per-task="${SLURM_CPUS_PER_TASK:-64}" --cpu-bind=none \
        "$bin/ray" start --block --temp-dir="$temp_dir" \
        --dashboard-agent-listen-port="$agent_port" \
        --num-cpus="${SLURM_CPUS_PER_TASK:-64}" --num-gpus="$gpus" \
        --labels="role=$role" "$@" &
    steps+=($!)
}

start_node 0 --head --node-ip-address="$head_ip" --port="$port" \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port"
for ((number = 1; number < ${#nodes[@]}; number++)); do
    # Slurm's nodes start when they please; a worker waits for its head for a while by itself.
    start_node "$number" --address="$head_ip:$port"
done

# With one node the learner and the engines share it; with more each role has its own.
where=(cluster.device=cuda) # said, because the first nodes to come may have no GPU
[ "$gpus" -gt 0 ] || where=(cluster.device=cpu)
if [ "${#nodes[@]}" -gt "$learner_nodes" ]; then
    where+=(cluster.engine_nodes.labels.role=rollout cluster.learner_nodes.labels.role=learner)
fi

python -m mgrpo check "$recipe" "$@" "${where[@]}" --address "$address" \
    --wait-s "$start_deadline_s"

echo "dashboard: ssh -L 8265:127.0.0.1:$dashboard_port $head, then http://127.0.0.1:8265"
python -m mgrpo submit "$recipe" "$@" "${where[@]}" cluster.address=auto --run "$run" \
    --address "$address" --env "MGRPO_RUNS_ROOT=$MGRPO_RUNS_ROOT" --skip-check &
following=$!

is_stopping=no
# shellcheck disable=SC2329
on_term() {
    # The run ends its update and writes its checkpoint, and its log is followed to the end.
    echo "stopping the run: Slurm's time is nearly over, or the job was cancelled"
    is_stopping=yes
    python -m mgrpo stop "$run" --address "$address" || true
}
trap on_term TERM

exit_code=0
wait "$following" || exit_code=$?
if [ "$is_stopping" = yes ]; then # `wait` was interrupted by the signal
    exit_code=0
    wait "$following" || exit_code=$?
    # The run is not finished: Slurm starts this job again, and it resumes from its checkpoint.
    scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$exit_code"
