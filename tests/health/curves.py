"""Loss curves of real tiny runs, many at once: `train_step` under vmap and scan."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from polyglot_jax.config import load_experiment
from polyglot_jax.step import eval_step, family, init_state, train_step

BATCH, LENGTH, VOCABULARY = 16, 16, 32
STEPS, EVERY = 240, 20
CHANGE = 120  # step after which some runs get another source; the learning rate falls from there

SETS = (
    *("model.num_layers=1", "model.d_model=32", "model.num_heads=2", "model.d_ff=128"),
    *(f"model.vocab_size={VOCABULARY}", f"model.max_seq_len={LENGTH}", f"data.seq_len={LENGTH}"),
    *(
        f"train.batch_size={BATCH}",
        f"train.steps={STEPS}",
        f"optimizer.decay_steps={STEPS * 3 // 4}",
    ),
    # Rises until CHANGE and then falls to a tenth within a few evaluations.
    *("optimizer.schedule=cosine", "optimizer.learning_rate=1e-2"),
    *("optimizer.min_learning_rate=1e-3", "optimizer.warmup_fraction=0.667"),
)
PLAN = [{"sources": [{"path": "a"}]}, {"from_step": CHANGE, "sources": [{"path": "b"}]}]


def language(seed: int) -> np.ndarray:
    """Returns the cumulative next-token probabilities of a made language, [token, next]."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(VOCABULARY, 0.1), VOCABULARY).cumsum(axis=1)


def texts(of: np.ndarray, seed: int, n: int) -> np.ndarray:
    """Returns n texts of a language, int32[n, LENGTH + 1]."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((n, LENGTH))
    tokens = np.zeros((n, LENGTH + 1), np.int32)
    tokens[:, 0] = rng.integers(0, VOCABULARY, n)
    for t in range(LENGTH):
        below = of[tokens[:, t]] < drawn[:, t : t + 1]
        tokens[:, t + 1] = below.sum(axis=1).clip(max=VOCABULARY - 1)
    return tokens


def epochs(corpus: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Returns int32[steps, BATCH, LENGTH + 1]: a corpus over and over, shuffled in each epoch."""
    rng = np.random.default_rng(seed)
    per_epoch = len(corpus) // BATCH
    order = [rng.permutation(len(corpus)) for _ in range(-(-steps // per_epoch))]
    return corpus[np.concatenate(order)][: steps * BATCH].reshape(steps, BATCH, LENGTH + 1)


def _batch(tokens: Any) -> dict[str, Any]:
    return {
        "inputs": tokens[..., :-1],
        "targets": tokens[..., 1:],
        "weights": np.ones((len(tokens), LENGTH), np.float32),
        "num_bytes": np.full(len(tokens), 3 * LENGTH, np.int32),
    }


def train(seeds: Sequence[int], data: np.ndarray, held_out: np.ndarray) -> list[list[Any]]:
    """Trains a run for each seed, all at once.

    Args:
      data: int32[runs, STEPS, BATCH, LENGTH + 1].
      held_out: int32[runs, 2, n, LENGTH + 1], up to step CHANGE and after it.
    Returns:
      Of each run the records that a trainer would have written.
    """
    e = load_experiment("ko_tiny", [*SETS, f"data.plan={json.dumps(PLAN)}"])

    def fresh(seed: jax.Array) -> Any:
        return init_state(e, family(e.model).init(e.model, jax.random.key(seed)))

    def one_step(state: Any, tokens: jax.Array) -> tuple[Any, Any]:
        state, metrics = train_step(e, state, _batch(tokens))
        return state, (metrics["loss"], metrics["spikes"])

    def until_evaluation(state: Any, given: Any) -> tuple[Any, Any]:
        tokens, held_out = given
        state, (losses, spikes) = jax.lax.scan(one_step, state, tokens)
        sums = eval_step(e.model, state.params, _batch(held_out))
        return state, (losses, spikes, sums["loss_sum"] / sums["weight"])

    @jax.jit
    @jax.vmap
    def whole_run(seed: jax.Array, data: jax.Array, held_out: jax.Array) -> Any:
        return jax.lax.scan(until_evaluation, fresh(seed), (data, held_out))[1]

    runs, rounds = len(seeds), STEPS // EVERY
    data = data.reshape(runs, rounds, EVERY, BATCH, LENGTH + 1)
    held_out = held_out[:, (np.arange(rounds) * EVERY >= CHANGE).astype(int)]
    losses, spikes, evaluated = jax.device_get(whole_run(np.array(seeds), data, held_out))
    assert spikes.max() == 0  # no step is skipped, not even those after the source has changed
    records: list[list[Any]] = [[] for _ in range(runs)]
    for run in range(runs):
        for step, loss in enumerate(losses[run].ravel().tolist(), 1):
            records[run].append({"step": step, "train/loss": loss})
            if step % EVERY == 0:
                value = float(evaluated[run, step // EVERY - 1])
                records[run].append({"step": step, "held_out/loss": value})
    return records
