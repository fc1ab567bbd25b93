#!/usr/bin/env bash
# Trains in PyTorch through DeepSpeed's launcher, after making .venv if it is missing.
#
#   bash launch/deepspeed.sh [--dry_run] [LAUNCHER_FLAG...] [FLAG...]
#   bash launch/deepspeed.sh --num_gpus=4 --flagfile=launch/experiments/digits.flags
#   bash launch/deepspeed.sh --hostfile=hosts --num_nodes=2 --flagfile=mine.flags
#
# The launcher's flags come first, as --name=value: hostfile, num_gpus (on CPUs: ranks;
# num_accelerators is the same), num_nodes, include, exclude, master_addr, master_port,
# launcher. All others go to `torch_ref.train`. --dry_run prints the command and runs
# nothing. JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/deepspeed.sh "$@"

dry_run=
launcher=()
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
while true; do
  argument=${1:-}
  name=${argument%%=*}
  value=${argument#*=}
  case "$argument" in
    --num_gpus=* | --num_accelerators=*)
      [[ $value =~ ^[1-9][0-9]{0,4}$ ]] \
        || fail "$name: must be a number above 0, got '$value'"
      launcher+=("--num_accelerators=$value")
      ;;
    --hostfile=*)
      if ! [ -r "$value" ] || [ -d "$value" ]; then
        fail "--hostfile: cannot read '$value'"
      fi
      launcher+=("$1")
      ;;
    --num_nodes=* | --include=* | --exclude=* | --master_addr=* | --master_port=* \
      | --launcher=*)
      launcher+=("$1")
      ;;
    --hostfile | --num_gpus | --num_accelerators | --num_nodes | --include | --exclude)
      fail "$1: write it $1=VALUE"
      ;;
    *) break ;;
  esac
  shift
done

command=(
  "${JAXNN_PYTHON:-.venv/bin/python}" -m deepspeed.launcher.runner
  ${launcher[@]+"${launcher[@]}"} --module torch_ref.train "$@"
)
if [ -n "$dry_run" ]; then
  quoted "${command[@]}"
  exit
fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh torch
# DeepSpeed's own port is one for all runs of a host.
if ! [[ " ${launcher[*]-} " =~ " --master_port="|" --hostfile=" ]]; then
  free_port='from jaxnn.experiment.ports import free_port; print(free_port())'
  port=$("${command[0]}" -c "$free_port")
  command=("${command[@]:0:3}" --master_port="$port" "${command[@]:3}")
fi
exec "${command[@]}"
