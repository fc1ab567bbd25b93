#!/usr/bin/env bash
# Runs labs, small experiments that show one thing each, after making .venv if it is
# missing: a page of pictures, figures and claims each, and a table at the end.
#
#   bash launch/labs.sh [--dry_run] [NAME...] [FLAG...]
#   bash launch/labs.sh optimizers gradients
#   bash launch/labs.sh --reduced --workdir=runs/labs
#
# Without a name it runs all; launch/labs/README.md lists them. Flags are parity.labs',
# whose --help lists them. Exit code 1 if a claim is not met, 2 on bad input. --dry_run
# prints the command and runs nothing. JAXNN_PYTHON names another Python than .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/labs.sh "$@"

dry_run=
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
command=("${JAXNN_PYTHON:-.venv/bin/python}" -m parity.labs "$@")
if [ -n "$dry_run" ]; then
  quoted "${command[@]}"
  exit
fi
[ -n "${JAXNN_PYTHON:-}" ] || bash launch/setup.sh torch
exec "${command[@]}"
