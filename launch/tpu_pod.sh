#!/usr/bin/env bash
# Trains in JAX on every host of a Cloud TPU slice, through gcloud.
#
#   bash launch/tpu_pod.sh [--dry_run] NAME ZONE [--folder=FOLDER] [FLAG...]
#   bash launch/tpu_pod.sh my-pod us-central2-b --flagfile=mine.flags
#
# FOLDER (default: jaxnn) holds this repository on every host: first
# `gcloud compute tpus tpu-vm scp --recurse --worker=all . NAME:jaxnn`. There .venv is
# made with the TPU's JAX if it is missing, then all flags go to `python -m
# jaxnn.train`. --dry_run prints the command and runs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/shell.sh
help_if_asked launch/tpu_pod.sh "$@"

dry_run=
folder=jaxnn
if [ "${1:-}" = --dry_run ]; then
  dry_run=yes
  shift
fi
name='^[a-z][a-z0-9-]*$'
[[ ${1:-} =~ $name && ${2:-} =~ $name ]] \
  || fail "needs the name of the TPU and its zone first; got '${*:1:2}'"
tpu=(gcloud compute tpus tpu-vm ssh "$1" "--zone=$2" --worker=all)
shift 2
case "${1:-}" in
  --folder=?*)
    folder=${1#*=}
    shift
    ;;
esac

remote="cd $(quoted "$folder") && bash launch/setup.sh"
remote+=" && .venv/bin/python -m pip install --quiet -c launch/constraints.txt"
remote+=" 'jax[tpu]'"
remote+=" && exec $(quoted .venv/bin/python -m jaxnn.train "$@" --distributed)"
command=("${tpu[@]}" "--command=$remote")
if [ -n "$dry_run" ]; then
  quoted "${command[@]}"
  exit
fi
command -v gcloud >/dev/null || fail "needs gcloud on PATH, https://cloud.google.com/sdk"
exec "${command[@]}"
