#!/usr/bin/env bash
# Functions of the launch scripts, which source this file from the repository's root.
set -euo pipefail

# fail MESSAGE...: ends the script with one line on stderr and exit code 2.
fail() {
  local name=${0##*/}
  # SLURM runs a copy of a batch script, which it names itself.
  echo "${SCRIPT:-${name%.sh}}: $*" >&2
  exit 2
}

# quoted WORD...: the words as one command line that a shell reads back unchanged.
quoted() {
  local word line=''
  for word; do
    [[ $word =~ ^[[:alnum:]_./:=,-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line:1}"
}

# help_if_asked FILE [ARGUMENT...]: prints the comment at FILE's head under --help.
help_if_asked() {
  case "${2:-}" in
    -h | --help)
      sed -nE '2,/^set/s/^#( |$)//p' "$1"
      exit
      ;;
  esac
}
