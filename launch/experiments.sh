#!/usr/bin/env bash
# Runs every experiment in full and prints one table: experiment, metric, target, met,
# seconds. Exit code 1 if one falls short. Arguments are flagfiles (default: all) and
# flags for each of them, e.g. --data_path=FOLDER.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash launch/setup.sh
case "${1:-}" in
  *.flags) ;;
  *) set -- launch/experiments/*.flags "$@" ;;
esac
exec .venv/bin/python -m jaxnn.reproduce "$@"
