#!/usr/bin/env bash
# A run on Cloud TPU VMs, one slice or several: from nothing to training, and back after preemption.
#
#   scripts/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [--dry-run] [OPTIONS] [-- TRAIN_FLAGS]
#
#   create   asks for the slice and waits for it: --type=v5p-128 [--project=P] [--slices=N] [--spot]
#            [--runtime=VERSION] (default: the one Google names for the type)
#   setup    copies this clone (its last commit) to all workers and makes .venv there;
#            [--weights=gs://BUCKET/NAME] also that HF directory, for --set train.init_from=hf/NAME
#   run      starts training on all workers: -- --experiment=E --workdir=gs://BUCKET/RUN ...
#   log      follows the log of worker 0
#   stop     saves a checkpoint and ends; returns when that is done
#   delete   gives the slice back
#   resume   what is needed after a preemption, with the flags of create, setup and run: a lost
#            slice is deleted and asked for again; a setup that broke is made again; a run that is
#            gone is started again. Call it every few minutes, from cron say; it does nothing where
#            all is well, or where another call is at work.
#
# Needs gcloud, logged in. Checkpoints and shards must lie on gs://: disks go with the slice.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }

command=${1:-}
[[ $command =~ ^(create|setup|run|log|stop|delete|resume)$ ]] ||
  fail "name a command: create, setup, run, log, stop, delete or resume"
shift
name='' zone='' project='' type='' runtime='' slices=1 spot='' weights='' dry_run=''
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --spot) spot=yes ;;
    --weights=*) weights=${1#*=} weights=${weights%/} ;;
    --dry-run) dry_run=yes ;;
    --) shift; break ;;
    *) fail "unknown option $1" ;;
  esac
  shift
done
[[ $name && $zone ]] || fail "--name and --zone are needed"
[[ $slices =~ ^[1-9][0-9]{0,3}$ ]] || fail "--slices=$slices: a number from 1 on"
[[ ! $weights || $weights =~ ^gs://[^/]+/. ]] || fail "--weights=$weights: as in gs://BUCKET/NAME"
place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")

do_it() { # runs a command, or shows it
  if [[ $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

gcloud_tpu() { do_it gcloud compute tpus queued-resources "$@" "${place[@]}"; }

everywhere() { # on all workers of all slices
  gcloud_tpu ssh "$name" --node=all --worker=all "--command=$1"
}

alone() { # one call at a time makes a slice or starts on it: both take minutes
  # Not in XDG_RUNTIME_DIR, which cron does not know: the call by hand and that of cron must meet.
  local locks=${XDG_CACHE_HOME:-$HOME/.cache}/polyglot-jax
  mkdir -p "$locks"
  exec 9>"$locks/tpu_vm-${project:+$project-}$zone-$name.lock"
  flock --nonblock 9 && return
  [[ $command == resume ]] || fail "another call is at work on $name"
  echo "another call is at work on $name"
  exit 0
}

default_runtime() { # https://cloud.google.com/tpu/docs/runtimes
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "--type=$type: v4-N, v5litepod-N, v5p-N or v6e-N; for another, name its --runtime" ;;
  esac
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    '--format=value(state.state)' 2>/dev/null || echo NONE
}

create() {
  local nodes=("--node-id=$name")
  ((slices == 1)) || nodes=("--node-count=$slices" "--node-prefix=$name")
  gcloud_tpu create "$name" "${nodes[@]}" "--accelerator-type=$type" \
    "--runtime-version=$runtime" ${spot:+--spot}
  [[ $dry_run ]] && return
  local now
  until now=$(state) && [[ $now == ACTIVE ]]; do
    [[ ! $now =~ ^(FAILED|SUSPEND.*|DELETING|NONE)$ ]] ||
      fail "the request is $now: gcloud compute tpus queued-resources describe $name"
    echo "$(date +%H:%M:%S) $now"
    sleep 30
  done
}

READY=.venv/.ready # what setup leaves on each worker when it has ended
NOT_READY=3        # what a worker without it answers

setup() {
  folder=$(mktemp -d)
  trap 'rm -r "$folder"' EXIT
  local bundle=$folder/polyglot-jax.bundle copy=''
  do_it git bundle create --quiet "$bundle" HEAD # with its history: checkpoints name their commit
  gcloud_tpu scp "$bundle" "$name:polyglot-jax.bundle" --node=all --worker=all
  if [[ $weights ]]; then
    copy=$(printf 'mkdir -p %q; gcloud storage rsync --recursive %q %q' \
      "hf/${weights##*/}" "$weights" "hf/${weights##*/}")
  fi
  # A new machine updates itself at first and holds the lock of packages.
  # The images have Python 3.10; uv brings 3.11, the version that the lock is tested with.
  # shellcheck disable=SC2016 # the workers expand it
  everywhere 'set -e; git init --quiet polyglot-jax; cd polyglot-jax; rm -f '"$READY"'
git fetch --quiet ../polyglot-jax.bundle HEAD; git checkout --quiet --force --detach FETCH_HEAD
sudo apt-get -qq -o DPkg::Lock::Timeout=600 install --yes gcc make python3-pip
python3 -m pip install --quiet --user uv; ~/.local/bin/uv python install --quiet 3.11
make env PYTHON="$(~/.local/bin/uv python find 3.11)"
.venv/bin/python -m pip install --quiet --editable ".[tpu,gcs]"
'"$copy
touch $READY"
}

is_set_up() { # on all workers
  local code=0
  everywhere "[ -e polyglot-jax/$READY ] || exit $NOT_READY" || code=$?
  ((code != NOT_READY)) || return 1
  # A worker that does not answer may be at work: nothing is installed under it.
  ((code == 0)) || fail "the workers of $name do not answer (exit code $code)"
}

run() {
  local flags
  flags=$(printf '%q ' --coordinator=auto "$@")
  # setsid: training outlives the connection. A second run beside the first is refused.
  everywhere "cd polyglot-jax 2>/dev/null && [ -e $READY ] ||
{ echo 'error: this worker is not set up: scripts/tpu_vm.sh setup' >&2; exit $NOT_READY; }
if [ -e train.pid ] && kill -0 \"\$(cat train.pid)\" 2>/dev/null
then echo 'it runs already'; else . scripts/xla_flags.sh tpu; setsid nohup scripts/keep_going.sh \
.venv/bin/python -m polyglot_jax.train $flags >>train.log 2>&1 </dev/null & echo \$! >train.pid; fi"
}

# What is missing is said before anything is deleted or paid for.
if [[ $command == create || $command == resume ]]; then
  [[ $type ]] || fail "$command needs --type, as in --type=v5p-128"
  [[ $runtime ]] || runtime=$(default_runtime)
fi
if [[ $command == run || $command == resume ]]; then
  (($#)) || fail "$command needs the flags of training: -- --experiment=E --workdir=gs://..."
fi
if [[ ! $dry_run && $command =~ ^(create|setup|run|resume)$ ]]; then
  alone
fi

case $command in
  create) create ;;
  setup) setup ;;
  run) run "$@" ;;
  log) gcloud_tpu ssh "$name" '--command=tail -n 50 -F polyglot-jax/train.log' ;;
  stop) # returns when it is saved: the slice may be deleted next
    # shellcheck disable=SC2016 # the workers expand it
    everywhere 'pid=$(cat polyglot-jax/train.pid) && kill -TERM "$pid" || exit 0
while kill -0 "$pid" 2>/dev/null; do sleep 1; done; tail -n 1 polyglot-jax/train.log'
    ;;
  delete) gcloud_tpu delete "$name" --force --quiet ;;
  resume)
    now=NONE
    [[ $dry_run ]] || now=$(state)
    case $now in
      ACTIVE) is_set_up || setup ;;
      NONE | FAILED | SUSPENDED | SUSPENDING)
        [[ $now == NONE ]] || gcloud_tpu delete "$name" --force --quiet
        create
        setup
        ;;
      *) echo "$now"; exit 0 ;; # on its way: asked for, being made or being deleted
    esac
    run "$@"
    ;;
esac
