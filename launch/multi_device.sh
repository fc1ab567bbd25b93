#!/usr/bin/env bash
# Trains in JAX on N devices of this machine, after making .venv if it is missing.
#
#   bash launch/multi_device.sh [--dry_run] N [FLAG...]
#   bash launch/multi_device.sh 8 --flagfile=launch/experiments/digits.flags
#
# GPUs and TPUs are used as they are; without any, the CPU becomes N virtual devices.
# All flags go to jaxnn.train. --dry_run prints the command and runs nothing.
# JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/multi_device.sh "$@"

dry_run=
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
[[ ${1:-} =~ ^[1-9][0-9]{0,4}$ ]] \
  || fail "needs the number of devices first, e.g. 8; got '${1:-}'"
count=$1
shift

# XLA gives these to the CPU alone: where there is an accelerator they change nothing.
virtual="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$count"
python=${JAXNN_PYTHON:-.venv/bin/python}
command=(
  env "XLA_FLAGS=$virtual" "$python" -m jaxnn.train "$@" "--num_devices=$count"
)
if [ -n "$dry_run" ]; then
  quoted "${command[@]}"
  exit
fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh
exec "${command[@]}"
