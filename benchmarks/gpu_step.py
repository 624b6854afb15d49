"""Our real training step on one device: which microbatch and remat fit, and how fast they run."""

import dataclasses
import gc
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import workload
from benchmarks.child import Row
from polyglot_jax import mesh as meshes
from polyglot_jax import step
from polyglot_jax.config import Experiment, MeshConfig, load_experiment
from polyglot_jax.devices import peak_flops
from polyglot_jax.plan import table
from polyglot_jax.plan.compiled import FLAGS, Plan
from polyglot_jax.plan.hardware import hardware_of

SCALE = Path(__file__).resolve().parents[1] / "docs" / "scale.jsonl"
MICROBATCHES = (16, 8, 4, 2, 1)
# Products of this many tokens fill the matrix units, so recomputing nothing wins from here on.
ENOUGH_TOKENS = 8192
USABLE = 0.95  # share of the memory that is planned for; XLA's temporaries need some


@dataclass(frozen=True)
class Residuals:
    """Bytes that the backward pass keeps from the forward pass: fixed, and for each sequence."""

    fixed: int
    per_sequence: int


def device_memory() -> int:
    """Returns the bytes that arrays may take on the first device; a CPU is given 4 GiB."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 4 * 2**30)


def residuals(experiment: Experiment) -> Residuals:
    """Traces the loss and adds up what its backward pass needs. Nothing is compiled or run.

    An upper bound: XLA shares some of these buffers.
    """
    params = jax.eval_shape(lambda: step.init_params(experiment))
    parameters = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params))
    model = step.family(experiment.model)

    def pullback(params: Any, batch: step.Batch) -> Any:
        key = jax.random.key(0)
        return jax.vjp(
            lambda p: model.loss_sum_and_weight(experiment.model, p, batch, key),
            params,
            has_aux=True,
        )[1]

    def kept(batch_size: int) -> int:
        shape = (batch_size, experiment.data.seq_len)
        batch = {
            "inputs": jax.ShapeDtypeStruct(shape, jnp.int32),
            "targets": jax.ShapeDtypeStruct(shape, jnp.int32),
            "weights": jax.ShapeDtypeStruct(shape, jnp.float32),
        }
        leaves = jax.tree.leaves(jax.eval_shape(pullback, params, batch))
        # The parameters themselves are kept too, but they are there anyway.
        new = Counter((leaf.shape, leaf.dtype) for leaf in leaves) - parameters
        return sum(n * math.prod(shape) * dtype.itemsize for (shape, dtype), n in new.items())

    one, two = kept(1), kept(2)
    return Residuals(fixed=2 * one - two, per_sequence=two - one)


def candidates(
    num_params: int, seq_len: int, kept: Mapping[str, Residuals], memory: int
) -> list[tuple[int, str]]:
    """Returns (microbatch, remat) pairs worth trying, the likely fastest first.

    At each remat the largest microbatch that should fit, and half of it in case it does not. One
    that recomputes less comes first if it leaves room for a microbatch that fills the device.

    Args:
      kept: by remat, from the one that recomputes least.
      memory: bytes of the device.
    """
    # AdamW: parameters and two moments in float32; the gradient at least in bfloat16, whole,
    # since clipping needs all of it before any of it is used.
    state = (3 * 4 + 2) * num_params
    enough: list[list[tuple[int, str]]] = []
    small: list[list[tuple[int, str]]] = []
    for remat, size in kept.items():
        for microbatch in MICROBATCHES:
            if state + size.fixed + microbatch * size.per_sequence <= USABLE * memory:
                pairs = [(microbatch, remat)] + [(microbatch // 2, remat)] * (microbatch > 1)
                (enough if microbatch * seq_len >= ENOUGH_TOKENS else small).append(pairs)
                break
    # Among those too small to fill the device, more recomputation allows a larger microbatch.
    small.sort(key=lambda pairs: -pairs[0][0])
    return [pair for pairs in enough + small for pair in pairs]


def kept_plan(name: str, device_kind: str) -> Plan | None:
    """Returns what docs/scale.jsonl has of an experiment on one such device, if it compiled."""
    for plan in table.read_cells(SCALE).values():
        kind = hardware_of(plan.topology).kind
        if (plan.experiment, plan.devices, kind) == (name, 1, device_kind):
            return plan if plan.temporaries is not None else None
    return None


def foretold_temporaries(experiment: Experiment, device_kind: str) -> int | None:
    """Returns the bytes beside state and batch by the kept plan; None if it is of another setting.

    The number of microbatches does not matter from two on: they are turns of one loop.
    """
    plan, accumulation = kept_plan(experiment.name, device_kind), experiment.train.accumulation
    if plan is None or plan.remat != experiment.model.remat:
        return None
    per_token = step.family(experiment.model).flops_per_token(
        experiment.model, experiment.data.seq_len
    )
    flops = per_token * workload.tokens_per_step(experiment)
    same_microbatch = plan.flops * accumulation == flops * plan.accumulation  # of the same model
    same_program = (plan.accumulation > 1) == (accumulation > 1)
    return plan.temporaries if same_microbatch and same_program else None


# ---- run by benchmarks.child


def plans(models: Sequence[str], remats: Sequence[str], overrides: Sequence[str]) -> Iterator[Row]:
    """Yields one row a model: its candidates on the first device."""
    memory = device_memory()
    for name in models:
        kept = {}
        for remat in remats:
            experiment = load_experiment(name, [*overrides, f"model.remat={remat}"])
            kept[remat] = residuals(experiment)
        num_params = step.family(experiment.model).num_params(experiment.model)
        pairs = candidates(num_params, experiment.data.seq_len, kept, memory)
        plan = kept_plan(name, jax.devices()[0].device_kind)
        yield {
            "part": "candidates",
            "status": "ok" if pairs else "does not fit",
            "model": name,
            "candidates": pairs,
            "kept_plan": (plan.sequences, plan.remat) if plan and plan.fits else None,
            "memory_bytes": memory,
            "kept_bytes": {k: dataclasses.asdict(v) for k, v in kept.items()},
        }


def measure(
    name: str,
    overrides: Sequence[str],
    microbatch: int,
    remat: str,
    accumulation: int,
    seconds: float,
    matmul_flops: float | None,
) -> Iterator[Row]:
    """Yields one row: time, speed, memory and compile time of `step.jit_train_step`.

    Its status is "ok", "does not fit" (XLA's plan is larger than the device), "out of memory", or
    "failed" where the loss is not finite.

    Args:
      seconds: about how long the timed steps take.
      matmul_flops: the measured peak, for the second MFU.
    """
    experiment = load_experiment(
        name,
        [
            *overrides,
            f"model.remat={remat}",
            f"train.accumulation={accumulation}",
            f"train.batch_size={microbatch * accumulation}",
        ],
    )
    row: Row = {
        "side": "polyglot-jax",
        "model": name,
        "microbatch": microbatch,
        "accumulation": accumulation,
        "remat": remat,
    }
    try:
        yield {**row, **_measure(experiment, seconds, matmul_flops)}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        yield {**row, "status": "out of memory", "error": str(error).splitlines()[0][:300]}


def _measure(experiment: Experiment, seconds: float, matmul_flops: float | None) -> Row:
    device = jax.devices()[0]
    mesh = meshes.make_mesh(MeshConfig(data=1), [device])
    host_batch = workload.random_batch(experiment)
    with jax.set_mesh(mesh):
        batch = meshes.put_batch(mesh, host_batch, experiment.train.batch_size)
        start = time.perf_counter()
        lowered = step.jit_train_step(experiment, mesh).lower(
            step.abstract_state(experiment, mesh), batch
        )
        trace_s = time.perf_counter() - start
        start = time.perf_counter()
        compiled = lowered.compile(FLAGS.get(device.platform))  # as `polyglot_jax.plan` does
        plan = compiled.memory_analysis()
        planned = (
            plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
            + plan.temp_size_in_bytes
        )
        temporaries = foretold_temporaries(experiment, device.device_kind)
        row: Row = {
            "trace_s": trace_s,
            "compile_s": time.perf_counter() - start,
            "planned_bytes": planned,
            "foretold_bytes": None
            if temporaries is None
            else plan.argument_size_in_bytes + temporaries,
            "kernel": "cudnn" if "__cudnn$fmha" in compiled.as_text() else "xla",
        }
        if planned > device_memory():
            return {**row, "status": "does not fit"}
        state = step.jit_init(experiment, mesh)()
        gc.collect()
        state, metrics = compiled(state, batch)
        row["first_loss"] = float(metrics["loss"])

        def run(n: int) -> None:
            nonlocal state, metrics
            for _ in range(n):
                state, metrics = compiled(state, batch)
            jax.block_until_ready(state)

        median, spread = workload.median_seconds(run, seconds)
        loss = float(metrics["loss"])
    tokens_per_s = workload.tokens_per_step(experiment) / median
    flops = tokens_per_s * step.family(experiment.model).flops_per_token(
        experiment.model, experiment.data.seq_len
    )
    peak = peak_flops(device.device_kind)
    return {
        **row,
        "status": "ok" if math.isfinite(loss) else "failed",
        "last_loss": loss,
        "step_s": median,
        "step_spread_s": spread,
        "tokens_per_s": tokens_per_s,
        "model_flops_per_s": flops,
        "mfu_datasheet": flops / peak if peak else None,
        "mfu_measured": flops / matmul_flops if matmul_flops else None,
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }
