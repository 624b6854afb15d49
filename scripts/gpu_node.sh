#!/usr/bin/env bash
# A run on one machine with NVIDIA GPUs; one process drives all of them.
#
#   scripts/gpu_node.sh setup [--dry-run]      makes .venv with JAX for CUDA
#   scripts/gpu_node.sh run [--dry-run] TRAIN_FLAGS
#
# `run` starts training again after a failure, from its newest checkpoint. Ctrl-C saves and ends.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }

command=${1:-}
[[ $command == setup || $command == run ]] || fail "name a command: setup or run"
shift
dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=yes
  shift
fi

do_it() {
  if [[ $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

if [[ $command == setup ]]; then
  do_it make env
  do_it .venv/bin/python -m pip install --quiet --editable '.[gpu]'
  do_it .venv/bin/python -c 'import jax; print(*jax.devices("gpu"))'
else
  (($#)) || fail "run needs the flags of training: --experiment=E --workdir=DIR"
  . scripts/xla_flags.sh gpu
  do_it scripts/keep_going.sh .venv/bin/python -m polyglot_jax.train "$@"
fi
