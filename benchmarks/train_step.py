"""Our training step beside torch's on the CPU of this machine: speed, memory, and the cause.

    python -m benchmarks.train_step --experiment=ko_tiny

Both sides live in processes of their own and take turns, round by round, so that other load on the
machine hits both. Beside the step each side times the matrix products of all linear layers alone:
what the step takes beyond them is everything else. Appends to benchmarks/RESULTS.md.
"""

import os
import statistics
import time
from collections.abc import Iterator

from absl import flags

from benchmarks import child, record, workload
from benchmarks.child import Row
from polyglot_jax import cli
from polyglot_jax.config import load_experiment

ROUNDS = 7

EXPERIMENT = flags.DEFINE_string("experiment", "ko_tiny", "experiment whose step is measured")
STEPS = flags.DEFINE_integer("steps", 4, "steps in each of the rounds", lower_bound=1)


def cpu_rounds(name: str, steps: int) -> Iterator[Row]:
    """Yields one row of facts, then one with the seconds of each round of `steps`, for ever."""
    import jax

    from polyglot_jax import mesh as meshes
    from polyglot_jax import step
    from polyglot_jax.models import neox

    jax.config.update("jax_platforms", "cpu")
    experiment = load_experiment(name)
    mesh = meshes.make_mesh(experiment.mesh)
    with jax.set_mesh(mesh):
        state = step.jit_init(experiment, mesh)()
        train_step = step.jit_train_step(experiment, mesh)
        batch = meshes.put_batch(
            mesh, workload.random_batch(experiment), experiment.train.batch_size
        )
        losses = []
        for _ in range(2):
            state, metrics = train_step(state, batch)
            losses.append(float(metrics["loss"]))
        yield {
            "parameters": neox.num_params(experiment.model),
            "loss": losses[0],
            "products_s": sum(p.count * _product_seconds(p) for p in workload.products(experiment)),
        }
        while True:
            start = time.perf_counter()
            for _ in range(steps):
                state, metrics = train_step(state, batch)
            jax.block_until_ready(state)
            elapsed = time.perf_counter() - start
            yield {"seconds": elapsed, "peak_bytes": child.peak_bytes()}


def _product_seconds(product: workload.Product) -> float:
    import jax
    import jax.numpy as jnp

    left = jax.random.normal(jax.random.key(0), product.left)
    right = jax.random.normal(jax.random.key(1), product.right)
    multiply = jax.jit(lambda a, b: jnp.einsum(product.einsum, a, b))

    def run(n: int) -> None:
        for _ in range(n):
            multiply(left, right).block_until_ready()

    run(1)
    return workload.median_seconds(run, 0.1)[0]


SIDES = {
    "polyglot-jax": "benchmarks.train_step:cpu_rounds",
    "torch, transformers": "benchmarks.torch_neox:cpu_rounds",
}


def measure(name: str, steps: int, rounds: int) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Returns, by side, the row of facts and the rows of the rounds, taken in turns.

    Raises:
      ValueError: a side failed; the message is its last line.
    """
    arguments = {"name": name, "steps": steps}
    children = {side: child.rows(function, arguments) for side, function in SIDES.items()}

    def ask(side: str) -> Row:
        row = next(children[side])
        if row.get("status") == "error":
            raise ValueError(f"{side}: {row['error']}")
        return row

    try:
        facts = {side: ask(side) for side in SIDES}
        timed: dict[str, list[Row]] = {side: [] for side in SIDES}
        for i in range(rounds):
            # Whoever goes first in one round goes second in the next.
            for side in list(SIDES)[:: 1 if i % 2 == 0 else -1]:
                timed[side].append(ask(side))
    finally:
        for rows in children.values():
            rows.close()
    return facts, timed


def report(name: str, steps: int, facts: dict[str, Row], timed: dict[str, list[Row]]) -> str:
    """Returns the Markdown of one run: a row a side, the ratio, and where the difference lies."""
    tokens = workload.tokens_per_step(load_experiment(name))
    step_s = {
        side: statistics.median(row["seconds"] for row in rows) / steps
        for side, rows in timed.items()
    }
    lines = []
    for side, rows in timed.items():
        speeds = sorted(tokens * steps / row["seconds"] for row in rows)
        products_s = facts[side]["products_s"]
        lines.append(
            [
                side,
                f"{tokens / step_s[side]:,.0f}",
                f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}",
                f"{1e3 * step_s[side]:,.0f}",
                f"{1e3 * products_s:,.0f}",
                f"{1e3 * (step_s[side] - products_s):,.0f}",
                f"{rows[-1]['peak_bytes'] / 2**20:,.0f}",
            ]
        )
    ours, theirs = SIDES
    paired = [b["seconds"] / a["seconds"] for a, b in zip(timed[ours], timed[theirs], strict=True)]
    gap = step_s[ours] - step_s[theirs]
    gap_products = facts[ours]["products_s"] - facts[theirs]["products_s"]
    columns = ["side", "tokens/s", "spread", "step ms", "linear layers ms", "all else ms"]
    return "\n".join(
        [
            record.table([*columns, "peak MiB"], lines),
            "",
            f"Ratio ours/torch in tokens/s: {statistics.median(paired):.2f} (median of "
            f"{len(paired)} pairs, {min(paired):.2f} to {max(paired):.2f}). Of the difference of "
            f"{1e3 * gap:,.0f} ms a step, the matrix products of the linear layers, timed alone on "
            f"the same shapes, make {1e3 * gap_products:,.0f} ms; attention, norms, activation, "
            f"loss and optimizer make {1e3 * (gap - gap_products):,.0f} ms.",
        ]
    )


def main() -> None:
    name, steps = EXPERIMENT.value, STEPS.value
    e = load_experiment(name)
    load_before = os.getloadavg()[0]
    facts, timed = measure(name, steps, ROUNDS)
    body = report(name, steps, facts, timed)
    print(body)
    versions = record.versions("jax", "jaxlib", "flax", "optax", "torch", "transformers")
    m = e.model
    section = record.section(
        f"Training step on a CPU, {name}, {record.now()}",
        {
            "command": f"`{record.command('benchmarks.train_step')}`",
            "commit": record.commit(),
            "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
            "machine": f"{record.cpu()}; load average {load_before:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after (a side with all cores to itself makes about "
            f"{record.cores()})",
            "work": f"{next(iter(facts.values()))['parameters']:,} parameters ({m.num_layers} "
            f"layers, d {m.d_model}, vocabulary {m.vocab_size:,}), {e.train.batch_size} x "
            f"{e.data.seq_len} tokens a step, float32, AdamW, clipping; torch: sdpa, fused AdamW, "
            f"{record.cores()} threads, eager",
            "rounds": f"{ROUNDS} of {steps} steps a side, in turns after two warm-up steps",
        },
        body,
    )
    record.append_section(section)


if __name__ == "__main__":
    cli.run(main)
