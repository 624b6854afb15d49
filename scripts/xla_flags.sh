#!/usr/bin/env bash
# The compiler flags that the other scripts train with: `. scripts/xla_flags.sh gpu|tpu`.
#
# What is set already stays. A run records what it was started with in WORKDIR/config.json.

case ${1:-} in
  gpu)
    # Collectives overlap with computation: the one flag of NVIDIA's own JAX images,
    # https://docs.nvidia.com/jax-toolbox/environment-variables
    export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_enable_latency_hiding_scheduler=true}"
    # What XLA may take of the memory; the default of 0.75 leaves a quarter unused.
    export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
    ;;
  tpu)
    # Gathers of FSDP and reductions of data parallelism overlap with computation: the flags of
    # MaxText's recipes, and one more. Without "prefer" a gather over a whole three-dimensional
    # slice is compiled as an all-reduce, twice the bytes, for which all wait (python -m
    # polyglot_jax.plan shows it). libtpu 0.0.42 takes them all; an unknown one ends the process.
    export LIBTPU_INIT_ARGS="${LIBTPU_INIT_ARGS:-\
--xla_tpu_enable_async_collective_fusion=true \
--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true \
--xla_tpu_enable_async_collective_fusion_multiple_steps=true \
--xla_tpu_overlap_compute_collective_tc=true \
--xla_enable_async_all_gather=true \
--xla_tpu_prefer_async_allgather_to_allreduce=true \
--xla_tpu_enable_data_parallel_all_reduce_opt=true \
--xla_tpu_data_parallel_opt_different_sized_ops=true}"
    ;;
  *)
    echo "error: name the platform: . scripts/xla_flags.sh gpu|tpu" >&2
    # shellcheck disable=SC2317 # reached where the file is run and not sourced
    return 2 2>/dev/null || exit 2
    ;;
esac
