#!/usr/bin/env bash
# Makes or completes .venv.
#
#   bash launch/setup.sh [EXTRAS]     # e.g. torch,test; none: the JAX side alone
#
# Needs python3 (3.11 or newer) and, for the extra torch, g++. Runs again at no cost: a
# stamp in .venv, written last, holds what it was made from, so an interrupted set-up is
# noticed and finished.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh

extras=${1:-}
wanted=$(cat pyproject.toml launch/constraints.txt | cksum)
stamp=.venv/.made-for-${extras:-jax}

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  || fail "needs Python 3.11 or newer as python3 on PATH; found" \
    "$(python3 --version 2>&1 || echo none)"

# What the tests need holds what less needs.
case $extras in
  "" | torch | test) stamps=(".venv/.made-for-torch,test" "$stamp") ;;
  *) stamps=("$stamp") ;;
esac
for made in "${stamps[@]}"; do
  if [ -x .venv/bin/python ] && [ "$(cat "$made" 2>/dev/null)" = "$wanted" ]; then
    exit 0
  fi
done

# A set-up that was interrupted may have left a .venv without pip.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  echo "setup: making .venv"
  python3 -m venv --clear .venv \
    || fail "python3 -m venv failed; on Debian and Ubuntu install python3-venv"
fi
echo "setup: installing ${extras:-the JAX side} into .venv (a few minutes the first time)"
.venv/bin/python -m pip install --disable-pip-version-check \
  -c launch/constraints.txt -e ".${extras:+[$extras]}" \
  | awk '/^(Collecting|Downloading|Installing|Successfully)/ {
      print "  " substr($0, 1, 110); fflush() }' \
  || fail "pip failed; run this again when the network is back, it goes on where it" \
    "stopped"
echo "$wanted" >"$stamp"
echo "setup: done"
