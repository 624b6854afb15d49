"""What a GPU is and whether it computes rightly: facts, ceilings, numbers against the CPU's."""

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workload
from benchmarks.child import Row
from polyglot_jax.attention import attention, choose_kernel
from polyglot_jax.config import NeoxConfig
from polyglot_jax.devices import peak_flops
from polyglot_jax.models import neox

# Bounds on ||a - b|| / ||b||, b the float32 value. float32 sums in another order differ by about
# 1e-6; tf32 would by 3e-4. A bfloat16 operand is off by up to 2^-9 = 2e-3: on a CPU the gradients
# of this model come out 0.9e-2 off, and those of attention 0.23e-2.
BOUNDS = {
    "float32": {"loss": 1e-5, "gradients": 1e-4},
    "bfloat16": {"loss": 1e-3, "gradients": 2e-2},
    "attention": {"output": 5e-3, "gradients": 1e-2},
}
HEAD_DIMS = (64, 128, 256)
SMALL = NeoxConfig(
    vocab_size=1024,
    num_layers=3,
    d_model=384,
    num_heads=3,
    d_ff=1536,
    rotary_pct=0.5,
    max_seq_len=256,
    init="normal",
)


def relative_error(value: Any, reference: Any) -> float:
    """Returns ||value - reference|| / ||reference|| over all leaves of two trees, in float64."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(reference), strict=True)
    ]
    difference = sum(np.sum((a - b) ** 2) for a, b in pairs)
    return float(np.sqrt(difference / sum(np.sum(b**2) for _, b in pairs)))


def verdict(part: str, errors: dict[str, float], bounds: dict[str, float]) -> Row:
    """Returns a row that is "ok" where every error is within its bound; NaN never is."""
    passed = all(errors[name] <= bound for name, bound in bounds.items())
    return {
        "part": part,
        "status": "ok" if passed else "failed",
        "relative_error": errors,
        "bound": bounds,
    }


# ---- run by benchmarks.child


def device(matmuls: Sequence[Sequence[int]], copy_bytes: int) -> Iterator[Row]:
    """Yields the facts of the first device, its speed in matrix products, its memory bandwidth."""
    first = jax.devices()[0]
    stats = first.memory_stats() or {}
    packages = {
        name: distribution.version
        for distribution in importlib.metadata.distributions()
        if (name := distribution.metadata["Name"] or "").startswith(("jax", "nvidia-"))
        or name in ("flax", "optax", "numpy", "torch", "transformers")
    }
    yield {
        "part": "device",
        "status": "ok",
        "platform": first.platform,
        "device_kind": first.device_kind,
        "devices": jax.device_count(),
        "compute_capability": getattr(first, "compute_capability", None),
        "memory_bytes": stats.get("bytes_limit"),
        "platform_version": " ".join(first.client.platform_version.split()),
        "datasheet_flops": peak_flops(first.device_kind),
        "nvidia_smi": nvidia_smi(),
        "packages": dict(sorted(packages.items())),
        "environment": {
            name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_"))
        },
    }
    for m, k, n in matmuls:
        left = jax.random.normal(jax.random.key(0), (m, k), jnp.bfloat16)
        right = jax.random.normal(jax.random.key(1), (k, n), jnp.bfloat16)
        seconds = _seconds(jax.jit(jnp.matmul), left, right)
        yield {
            "part": "matmul",
            "status": "ok",
            "shape": f"{m} x {k} x {n}, bfloat16",
            "flops": 2 * m * k * n / seconds,
        }
    source = jax.random.normal(jax.random.key(0), (copy_bytes // 4,))
    seconds = _seconds(jax.jit(jnp.negative), source)
    yield {
        "part": "bandwidth",
        "status": "ok",
        "shape": f"{copy_bytes:,} bytes read and as many written",
        "bytes_per_s": 2 * copy_bytes / seconds,
    }


def _seconds(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    def run(n: int) -> None:
        for _ in range(n):
            out = function(*arguments)
        out.block_until_ready()

    run(1)
    return workload.median_seconds(run, 0.5)[0]


def nvidia_smi() -> str | None:
    """Returns name, driver, memory and power limit as nvidia-smi has them; None without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=name,driver_version,memory.total,power.limit"
    done = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.strip() or None


def correctness(seq_len: int) -> Iterator[Row]:
    """Yields rows that compare loss and gradients with the CPU's, then every attention kernel."""
    key = jax.random.key(0)
    cpu, first = jax.devices("cpu")[0], jax.devices()[0]
    rng = np.random.default_rng(0)
    tokens = rng.integers(SMALL.vocab_size, size=(2, seq_len + 1), dtype=np.int32)
    batch = {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": np.ones((2, seq_len), np.float32),
    }
    with jax.default_device(cpu):
        params = jax.tree.map(np.asarray, neox.init(SMALL, key))

    def loss_and_gradients(where: jax.Device, dtype: str, kernel: str) -> tuple[Any, Any]:
        config = dataclasses.replace(SMALL, compute_dtype=dtype, attention=kernel)

        def mean_loss(params: Any, batch: Any) -> jax.Array:
            loss_sum, weight = neox.loss_sum_and_weight(config, params, batch, key)
            return loss_sum / weight

        # float32 means float32: a GPU's default for it is tf32.
        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            return jax.device_get(
                jax.jit(jax.value_and_grad(mean_loss))(
                    jax.device_put(params, where), jax.device_put(batch, where)
                )
            )

    reference = loss_and_gradients(cpu, "float32", "xla")
    for dtype, kernel in (("float32", "xla"), ("bfloat16", "xla"), ("bfloat16", "auto")):
        part = f"model, {dtype}, attention={kernel}, against the CPU in float32"
        try:
            loss, gradients = loss_and_gradients(first, dtype, kernel)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            yield refusal(part, error)
            continue
        errors = {
            "loss": relative_error(loss, reference[0]),
            "gradients": relative_error(gradients, reference[1]),
        }
        yield verdict(part, errors, BOUNDS[dtype])
    for head_dim in HEAD_DIMS:
        yield from attention_rows(head_dim, seq_len)


def attention_rows(head_dim: int, seq_len: int) -> Iterator[Row]:
    """Yields one row a kernel: outputs and gradients in bfloat16 against XLA in float32.

    The row of XLA itself shows what bfloat16 costs any kernel.
    """
    shape = (2, seq_len, 4, head_dim)
    q, k, v, cotangent = (
        jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i in range(4)
    )

    def run(kernel: str, dtype: Any) -> Any:
        def forward_and_backward(*qkv: jax.Array) -> Any:
            out, pullback = jax.vjp(lambda *x: attention(*x, kernel=kernel), *qkv)
            return out, pullback(cotangent.astype(dtype))

        arguments = (x.astype(dtype) for x in (q, k, v))
        with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
            return jax.device_get(jax.jit(forward_and_backward)(*arguments))

    reference = run("xla", jnp.float32)
    for kernel in ("xla", "cudnn"):
        part = f"attention {kernel}, head_dim {head_dim}"
        try:
            choose_kernel(kernel, head_dim=head_dim, seq_len=seq_len, dtype=jnp.bfloat16)
            out, gradients = run(kernel, jnp.bfloat16)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            yield refusal(part, error)
            continue
        errors = {
            "output": relative_error(out, reference[0]),
            "gradients": relative_error(gradients, reference[1]),
        }
        yield verdict(part, errors, BOUNDS["attention"])


def refusal(part: str, error: Exception) -> Row:
    """Returns the row of a combination that did not run: one the library refuses with a ValueError
    "cannot run"; one that it lets through and that then fails is an "error"."""
    status = "cannot run" if isinstance(error, ValueError) else "error"
    return {"part": part, "status": status, "error": " ".join(str(error).split())[:300]}
