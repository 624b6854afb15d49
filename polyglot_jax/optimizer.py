"""AdamW as GPT-NeoX trains with it: schedules, decay mask, and the optax chain.

Sources: GPT-NeoX `learning_rates.py` (AnnealingLR), `model/utils.py`
(get_params_for_weight_decay_optimization) and FusedAdam with decoupled decay.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from polyglot_jax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate of update t, counted from 0.

    Both forms warm up linearly from 0 over w = int(warmup_fraction * decay_steps) updates, so the
    first update changes nothing; with n = decay_steps:
      neox_cosine  max(min, peak/2 (1 + cos(pi (t - w) / n))): towards zero, clipped at the
                   minimum. The divisor is n, not n - w, as AnnealingLR has it.
      cosine       min + (peak - min)/2 (1 + cos(pi (t - w) / (n - w))), then the minimum.

    Args:
      steps: length of the run, used where config.decay_steps is None.
    """
    peak, minimum = config.learning_rate, config.min_learning_rate
    n = config.decay_steps or steps
    w = int(config.warmup_fraction * n)

    def schedule(t: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(t, jnp.float32)
        after = jnp.clip(t - w, 0, n - w)
        if config.schedule == "neox_cosine":
            decayed = jnp.maximum(minimum, peak / 2 * (1 + jnp.cos(jnp.pi * after / n)))
        else:
            share = (1 + jnp.cos(jnp.pi * after / (n - w))) / 2
            decayed = minimum + (peak - minimum) * share
        return jnp.where(t < w, peak * t / max(w, 1), decayed)

    return schedule


def decay_mask(params: Any) -> Any:
    """Returns a tree of bool: true where weight decay applies.

    Norms and biases are not decayed; embedding and head are.
    """

    def is_decayed(path: tuple[Any, ...], leaf: Any) -> bool:
        del leaf
        return path[-1].key not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def trainable_mask(config: OptimizerConfig, params: Any) -> Any:
    """Returns a tree of bool: true where config.trainable matches the parameter's path.

    Paths are joined by "/": "layers/attention/query_key_value/kernel".

    Raises:
      ValueError: the expression is malformed or matches nothing.
    """
    try:
        pattern = re.compile(config.trainable or "")
    except re.error as error:
        raise ValueError(
            f"optimizer.trainable={config.trainable!r} is not a regular expression: {error}"
        ) from None
    mask = jax.tree_util.tree_map_with_path(
        lambda path, leaf: pattern.search("/".join(str(key.key) for key in path)) is not None,
        params,
    )
    if not any(jax.tree.leaves(mask)):
        raise ValueError(
            f"optimizer.trainable={config.trainable!r} matches no parameter; paths look like "
            "'layers/attention/query_key_value/kernel'"
        )
    return mask


def make_optimizer(
    config: OptimizerConfig, steps: int, params: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Returns clip -> Adam -> decoupled decay -> learning rate; frozen parameters get no update.

    Args:
      steps: length of the run, see `make_schedule`.
      params: the parameter tree, of arrays or of shapes.
    """
    schedule = make_schedule(config, steps)
    # Named, so that a checkpoint's paths say what they hold and do not shift with the chain.
    chain = optax.named_chain(
        ("clip", optax.clip_by_global_norm(config.clip_norm)),
        ("adam", optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)),
        ("decay", optax.add_decayed_weights(config.weight_decay, mask=decay_mask)),
        ("schedule", optax.scale_by_learning_rate(schedule)),
    )
    if config.trainable is None:
        return chain
    labels = jax.tree.map(
        lambda is_trained: "trained" if is_trained else "frozen", trainable_mask(config, params)
    )
    return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)
