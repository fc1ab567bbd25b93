#!/usr/bin/env bash
# Trains in JAX, after making .venv if it is missing. Arguments go to `python -m
# jaxnn.train`; without any it trains the breast-cancer experiment. Paths are relative to
# the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/setup.sh
[ $# -gt 0 ] || set -- --flagfile=launch/experiments/breast_cancer.flags
echo "python -m jaxnn.train $*"
exec .venv/bin/python -m jaxnn.train "$@"
