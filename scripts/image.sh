#!/usr/bin/env bash
# What the image of scripts/Dockerfile starts: python, with the flags of its accelerator's compiler.
#
#   scripts/image.sh -m polyglot_jax.train --experiment=E --workdir=DIR
#
# EXTRA says what the image was built for.
set -euo pipefail
cd "$(dirname "$0")/.."

if (($# == 0)); then
  echo "error: no arguments of python: -m polyglot_jax.train --experiment=E --workdir=DIR" >&2
  exit 2
fi
case ,${EXTRA:-}, in
  *,tpu,*) . scripts/xla_flags.sh tpu ;;
  *,gpu,*) . scripts/xla_flags.sh gpu ;;
esac
exec .venv/bin/python "$@" # in this shell's place, to hear SIGTERM
