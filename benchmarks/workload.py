"""What both sides of a comparison do: the same batch, the same matrix products, the same clock."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polyglot_jax.config import Experiment

GROUPS = 5  # timed groups of steps; their median is the step time


def random_batch(experiment: Experiment) -> dict[str, np.ndarray]:
    """Returns one update's batch of uniformly random tokens, as `polyglot_jax.step` takes it."""
    B, T = experiment.train.batch_size, experiment.data.seq_len
    tokens = np.random.default_rng(0).integers(
        experiment.model.vocab_size, size=(B, T + 1), dtype=np.int32
    )
    return {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": np.ones((B, T), np.float32),
        "num_bytes": np.full(B, 3 * T, np.int32),
    }


def tokens_per_step(experiment: Experiment) -> int:
    return experiment.train.batch_size * experiment.data.seq_len


def median_seconds(run_steps: Callable[[int], None], budget: float) -> tuple[float, float]:
    """Returns the median and the spread (largest less smallest) of seconds per step, warmed up.

    Args:
      run_steps: does n steps and waits for the last.
      budget: seconds for the timed steps; one step a group is done whatever it takes.
    """
    start = time.perf_counter()
    run_steps(1)
    steps = max(1, int(budget / GROUPS / (time.perf_counter() - start)))
    times = []
    for _ in range(GROUPS):
        start = time.perf_counter()
        run_steps(steps)
        times.append((time.perf_counter() - start) / steps)
    return statistics.median(times), max(times) - min(times)


@dataclass(frozen=True)
class Product:
    """A matrix product of the step, `count` times: an einsum and the shapes of its operands."""

    einsum: str
    left: tuple[int, int]
    right: tuple[int, int]
    count: int


def products(experiment: Experiment) -> list[Product]:
    """Returns the products of all linear layers in one step, forward and backward.

    Those of attention are left out: a fused kernel does not do them as products.
    """
    m, T = experiment.model, tokens_per_step(experiment)
    D, F, V, N = m.d_model, m.d_ff, m.vocab_size, m.num_layers
    found = []
    for count, fan_in, fan_out in [(N, D, 3 * D), (N, D, D), (N, D, F), (N, F, D), (1, D, V)]:
        x, w, y = (T, fan_in), (fan_in, fan_out), (T, fan_out)
        found += [
            Product("ti,io->to", x, w, count),  # y = x w
            Product("to,io->ti", y, w, count),  # dx
            Product("ti,to->io", x, y, count),  # dw
        ]
    return found
