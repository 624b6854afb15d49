#!/usr/bin/env bash
# A run on TPU slices in GKE: writes the JobSet and applies it.
#
#   scripts/gke.sh --name=NAME --image=IMAGE --tpu=v5p|v5e|v6e|v4 --topology=4x4x4 [--slices=N]
#       [--spot] [--service-account=KSA] [--restarts=N] [--dry-run] -- TRAIN_FLAGS
#
# The cluster needs the JobSet controller and a node pool of that topology: see BUILD.md. Any pod's
# end ends its job; the JobSet then starts all again, and training goes on from the checkpoint.
# After --restarts of that the JobSet has failed for good. Failures and preemptions count alike, so
# it is 20, and 1000 with --spot. --dry-run prints the manifest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/xla_flags.sh tpu

fail() { echo "error: $*" >&2; exit 2; }

name='' image='' tpu='' topology='' slices=1 spot='' account=default restarts='' dry_run=''
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --tpu=*) tpu=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --spot) spot=yes ;;
    --service-account=*) account=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --) shift; break ;;
    *) fail "unknown option $1" ;;
  esac
  shift
done
[[ $name && $image && $tpu && $topology ]] || fail "--name, --image, --tpu and --topology are needed"
(($#)) || fail "the flags of training are missing: -- --experiment=E --workdir=gs://BUCKET/RUN"
case $tpu in # https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
  v4) accelerator='tpu-v4-podslice' ;;
  v5e) accelerator='tpu-v5-lite-podslice' ;;
  v5p) accelerator='tpu-v5p-slice' ;;
  v6e) accelerator='tpu-v6e-slice' ;;
  *) fail "--tpu=$tpu: v4, v5e, v5p or v6e" ;;
esac
size='[1-9][0-9]{0,2}'
[[ $topology =~ ^${size}x${size}(x${size})?$ ]] || fail "--topology=$topology: as in 4x4 or 4x4x4"
chips=$((${topology//x/*}))
((chips % 4 == 0)) || fail "--topology=$topology: $chips chips are no whole hosts of 4"
[[ $slices =~ ^[1-9][0-9]{0,3}$ ]] || fail "--slices=$slices: a number from 1 on"
if [[ ! $restarts ]]; then
  restarts=20
  [[ ! $spot ]] || restarts=1000
fi
[[ $restarts =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "--restarts=$restarts: a number below a million"

quote() { # a YAML string in single quotes
  printf "'%s'" "${1//\'/\'\'}"
}
arguments=''
for argument in -m polyglot_jax.train --coordinator=auto "$@"; do
  arguments+="
                    - $(quote "$argument")"
done

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $(quote "$name")
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: $restarts
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          parallelism: $((chips / 4))
          completions: $((chips / 4))
          completionMode: Indexed
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              serviceAccountName: $(quote "$account")
              terminationGracePeriodSeconds: 300 # for a checkpoint
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $topology${spot:+
                cloud.google.com/gke-spot: 'true'}
              containers:
                - name: train
                  image: $(quote "$image")
                  command: [/polyglot-jax/.venv/bin/python]
                  args:$arguments
                  env:
                    - name: LIBTPU_INIT_ARGS
                      value: $(quote "$LIBTPU_INIT_ARGS")
                  ports:
                    - containerPort: 8471 # TPU runtime
                    - containerPort: 8482 # JAX's coordinator
                  resources:
                    limits:
                      google.com/tpu: 4
YAML
}

if [[ $dry_run ]]; then
  manifest
else
  manifest | kubectl apply -f -
fi
