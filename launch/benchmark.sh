#!/usr/bin/env bash
# Measures how fast jaxnn trains the benchmark's workloads, beside DeepSpeed and PyTorch,
# after making .venv if it is missing, and writes the table of
# launch/experiments/README.md.
#
#   bash launch/benchmark.sh [--dry_run] [FLAG...]
#   bash launch/benchmark.sh --rounds=5 --workloads=W4,W6
#
# All flags go to parity.speed.benchmark, whose --help lists them. Takes about an hour on
# 2 cores; other work on the machine moves every figure. --dry_run prints the command and
# runs nothing. JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/benchmark.sh "$@"

dry_run=
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
command=("${JAXNN_PYTHON:-.venv/bin/python}" -m parity.speed.benchmark "$@")
if [ -n "$dry_run" ]; then
  quoted "${command[@]}"
  exit
fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh torch
exec "${command[@]}"
