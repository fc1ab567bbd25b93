#!/usr/bin/env bash
# Runs the test suite, after making .venv with everything. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source launch/shell.sh

command -v g++ >/dev/null || fail "needs g++, with which DeepSpeed compiles its Adam"
bash launch/setup.sh torch,test
exec .venv/bin/python -m pytest -n auto "$@"
