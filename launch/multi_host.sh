#!/usr/bin/env bash
# Trains in JAX in several processes that act as one: N of them on this machine, or one
# on each host of a hostfile.
#
#   bash launch/multi_host.sh [--dry_run] N|--hostfile=FILE \
#     [--devices_per_process=D] [--port=P] [FLAG...]
#   bash launch/multi_host.sh 2 --flagfile=launch/experiments/digits.flags
#
# The hostfile is DeepSpeed's, `name slots=4` a line; slots are not counted, a process
# takes all devices of its host. Hosts are reached by ssh and hold this repository and
# its .venv at the same path. D: virtual devices of a process on a CPU. P: where process
# 0 is met; left out, a free port, or 8476 with a hostfile. All other flags go to
# jaxnn.train. How the processes are stopped: `python3 launch/supervise.py --help`.
# --dry_run prints the commands. JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/multi_host.sh "$@"

# number NAME VALUE: ends the script unless the value is a number above 0.
number() {
  [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1: must be a number above 0, got '$2'"
}

# read_hosts FILE: the names of a hostfile into `hosts`.
read_hosts() {
  local host slots
  local name='^[[:alnum:]_.@][[:alnum:]_.@-]*$'
  { [ -r "$1" ] && [ ! -d "$1" ]; } || fail "--hostfile: cannot read '$1'"
  while read -r host slots; do
    [[ $host =~ $name && $slots =~ ^(slots=[0-9]+)?$ \
      && " ${hosts[*]:-} " != *" $host "* ]] \
      || fail "--hostfile: $1: '$host${slots:+ $slots}' is not 'name slots=4'" \
        "with a name of its own"
    hosts+=("$host")
  done < <(sed 's/[[:space:]]*#.*//; s/[[:space:]]*$//; /^$/d' "$1")
}

dry_run=
file=
port=
hosts=()
program=("${JAXNN_PYTHON:-.venv/bin/python}" -m jaxnn.train)
while true; do
  argument=${1:-}
  value=${argument#*=}
  case "$argument" in
    --dry_run) dry_run=yes ;;
    --hostfile=*)
      file=$value
      hosts=()
      read_hosts "$file"
      ;;
    --port=*)
      number --port "$value"
      ((value < 65536)) || fail "--port: must be less than 65536, got '$value'"
      port=$value
      ;;
    --devices_per_process=*)
      number --devices_per_process "$value"
      virtual="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$value"
      program=(env "XLA_FLAGS=$virtual" "${program[@]}")
      ;;
    [0-9]*)
      number "number of processes" "$value"
      file=
      hosts=()
      for ((k = 0; k < value; k++)); do hosts+=(127.0.0.1); done
      ;;
    *) break ;;
  esac
  shift
done
[ ${#hosts[@]} -gt 0 ] || fail "needs the number of processes first, or" \
  "--hostfile=FILE that names hosts; got '${1:-}'"
given=$port
ports='from jaxnn.experiment.ports import free_port, is_taken'
[ -n "$port$file" ] || port=$(python3 -c "$ports; print(free_port())")

lines=()
# Where ssh ends, so does the stdin of the remote side, which stops what runs there.
remote="cd $(quoted "$PWD") && exec python3 launch/supervise.py --until_eof"
for k in "${!hosts[@]}"; do
  meeting=(
    "--coordinator_address=${hosts[0]#*@}:${port:-8476}"
    "--num_processes=${#hosts[@]}" "--process_id=$k"
  )
  line=$(quoted "${program[@]}" "$@" "${meeting[@]}")
  if [ -n "$file" ]; then
    line=$(quoted ssh -o BatchMode=yes -o ServerAliveInterval=15 "${hosts[k]}" \
      "$remote $(quoted "$line")")
  fi
  lines+=("$line")
done
if [ -n "$dry_run" ]; then
  printf '%s\n' "${lines[@]}"
  exit
fi
if [ -n "$given" ] && [ -z "$file" ]; then
  python3 -c "$ports; exit(is_taken($port))" \
    || fail "--port: $port is taken by another program; choose a free one, or none"
fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh
exec python3 launch/supervise.py ${file:+--ssh} "${lines[@]}"
