#!/usr/bin/env bash
# Trains in PyTorch through DeepSpeed's launcher, after making .venv if it is missing.
#
#   bash launch/deepspeed.sh [--dry_run] [LAUNCHER_FLAG...] [FLAG...]
#   bash launch/deepspeed.sh --num_gpus=4 --flagfile=launch/experiments/digits.flags
#   bash launch/deepspeed.sh --hostfile=hosts --num_nodes=2 --flagfile=launch/experiments/digits.flags
#
# The launcher's flags come first, as --name=value: hostfile, num_gpus (on CPUs: ranks; num_accelerators is the same),
# num_nodes, include, exclude, master_addr, master_port, launcher; all others go to `torch_ref.train`. --dry_run prints
# the command and runs nothing. JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "deepspeed: $*" >&2; exit 2; }
quoted() { local w all=''; for w; do [[ $w =~ ^[[:alnum:]_./:=,-]+$ ]] || w=${w@Q}; all+=" $w"; done; echo "${all:1}"; }

case "${1:-}" in -h | --help) sed -nE '2,/^set/s/^#( |$)//p' "launch/${0##*/}"; exit ;; esac
dry_run='' launcher=()
if [ "${1:-}" = --dry_run ]; then dry_run=yes; shift; fi
while true; do
  case "${1:-}" in
    --num_gpus=* | --num_accelerators=*)
      [[ ${1#*=} =~ ^[1-9][0-9]{0,4}$ ]] || fail "${1%%=*}: must be a number above 0, got '${1#*=}'"
      launcher+=("--num_accelerators=${1#*=}") ;;
    --hostfile=*)
      if ! [ -r "${1#*=}" ] || [ -d "${1#*=}" ]; then fail "--hostfile: cannot read '${1#*=}'"; fi
      launcher+=("$1") ;;
    --num_nodes=* | --include=* | --exclude=* | --master_addr=* | --master_port=* | --launcher=*) launcher+=("$1") ;;
    --hostfile | --num_gpus | --num_accelerators | --num_nodes | --include | --exclude) fail "$1: write it $1=VALUE" ;;
    *) break ;;
  esac
  shift
done

python=${JAXNN_PYTHON:-.venv/bin/python}
command=("$python" -m deepspeed.launcher.runner ${launcher[@]+"${launcher[@]}"} --module torch_ref.train "$@")
if [ -n "$dry_run" ]; then quoted "${command[@]}"; exit; fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh torch
exec "${command[@]}"
