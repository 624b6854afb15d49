#!/usr/bin/env bash
# Runs a command again until it succeeds: a training run goes on from its newest checkpoint.
#
#   scripts/keep_going.sh [--dry-run] [--tries=5] [--long=600] COMMAND [ARGUMENT ...]
#
# Gives up after --tries failures in a row; an attempt of more than --long seconds did some work and
# does not count. SIGTERM, SIGINT and SIGHUP go to the command as SIGTERM and end the repetition; its
# exit code is this script's.
set -euo pipefail

tries=5
long=600
dry_run=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --dry-run) dry_run=yes ;;
    --tries=*) tries=${1#*=} ;;
    --long=*) long=${1#*=} ;;
    *) echo "error: unknown option $1" >&2; exit 2 ;;
  esac
  shift
done
if (($# == 0)); then
  echo "error: no command; usage: scripts/keep_going.sh [--tries=N] [--long=S] COMMAND ..." >&2
  exit 2
fi
if [[ $dry_run ]]; then
  printf '%q ' "$@" && echo
  exit 0
fi

child=
told=0 # how often
pass_on() {
  told=$((told + 1))
  [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
}
trap pass_on TERM INT HUP
set -m # its own group: of a Ctrl-C, training would hear twice, and ends unsaved at the second

failures=0
while true; do
  began=$SECONDS
  "$@" &
  child=$!
  ((told == 0)) || kill -TERM "$child" || true # told before it had a number
  until # a trap cuts `wait` short: the command is still saving
    before=$told code=0
    wait "$child" || code=$?
    ((before == told))
  do :; done
  ((told == 0)) || exit "$code"
  ((code != 0)) || exit 0
  failures=$((SECONDS - began > long ? 1 : failures + 1))
  if ((failures >= tries)); then
    echo "error: gave up after $failures failures in a row (the last with exit code $code)" >&2
    exit "$code"
  fi
  echo "exit code $code: failure $failures of $tries in a row; starting again" >&2
  sleep 5
  ((told == 0)) || exit "$code"
done
