#!/usr/bin/env bash
# Trains in JAX in several processes that act as one: N of them on this machine, or one on each host of a hostfile.
#
#   bash launch/multi_host.sh [--dry_run] N|--hostfile=FILE [--devices_per_process=D] [--port=P] [FLAG...]
#   bash launch/multi_host.sh 2 --flagfile=launch/experiments/digits.flags
#
# The hostfile is DeepSpeed's, `name slots=4` a line; slots are not counted, a process takes all devices of its host.
# Hosts are reached by ssh and hold this repository and its .venv at the same path. D: virtual devices of a process on
# a CPU. P: where process 0 is met; left out, a free port, or 8476 with a hostfile. All other flags go to jaxnn.train.
# `bash launch/together.sh --help`: how they are stopped. --dry_run prints the commands. JAXNN_PYTHON: another Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "multi_host: $*" >&2; exit 2; }
quoted() { local w all=''; for w; do [[ $w =~ ^[[:alnum:]_./:=,-]+$ ]] || w=${w@Q}; all+=" $w"; done; echo "${all:1}"; }
number() { [[ ${1#*=} =~ ^[1-9][0-9]{0,4}$ ]] || fail "${1%%=*}: must be a number above 0, got '${1#*=}'"; }
case "${1:-}" in -h | --help) sed -nE '2,/^set/s/^#( |$)//p' "launch/${0##*/}"; exit ;; esac
name='^[[:alnum:]_.@][[:alnum:]_.@-]*$' dry_run='' file='' port='' hosts=() lines=()
program=("${JAXNN_PYTHON:-.venv/bin/python}" -m jaxnn.train)
while case "${1:-}" in
  --dry_run) dry_run=yes ;;
  --hostfile=*) file=${1#*=} hosts=()
    { [ -r "$file" ] && [ ! -d "$file" ]; } || fail "--hostfile: cannot read '$file'"
    while read -r host slots; do
      [[ $host =~ $name && $slots =~ ^(slots=[0-9]+)?$ && " ${hosts[*]:-} " != *" $host "* ]] \
        || fail "--hostfile: $file: '$host${slots:+ $slots}' is not 'name slots=4' with a name of its own"
      hosts+=("$host")
    done < <(sed 's/[[:space:]]*#.*//; s/[[:space:]]*$//; /^$/d' "$file") ;;
  --port=*) number "$1"; port=${1#*=} ;;
  --devices_per_process=*) number "$1"; virtual=--xla_force_host_platform_device_count=${1#*=}
    program=(env "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$virtual" "${program[@]}") ;;
  [0-9]*) number "number of processes=$1"; file='' hosts=(); for ((k = 0; k < $1; k++)); do hosts+=(127.0.0.1); done ;;
  *) false ;;
esac; do shift; done
[ ${#hosts[@]} -gt 0 ] || fail "needs the number of processes first, or --hostfile=FILE that names hosts; got '${1:-}'"
[ -n "$port$file" ] || port=$(python3 -c 'from jaxnn.experiment.ports import free_port; print(free_port())')
for k in "${!hosts[@]}"; do
  meeting=("--coordinator_address=${hosts[0]#*@}:${port:-8476}" "--num_processes=${#hosts[@]}" "--process_id=$k")
  lines[k]=$(quoted "${program[@]}" "$@" "${meeting[@]}")
  [ -z "$file" ] || lines[k]=$(quoted ssh -o BatchMode=yes -o ServerAliveInterval=15 "${hosts[k]}" \
    "cd $(quoted "$PWD") && exec bash launch/together.sh --until_eof $(quoted "${lines[k]}")")
done
if [ -n "$dry_run" ]; then printf '%s\n' "${lines[@]}"; exit; fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh
exec bash launch/together.sh ${file:+--ssh} "${lines[@]}"
