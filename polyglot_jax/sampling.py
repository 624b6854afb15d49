"""From logits to the next token: the usual filters as pure functions, in the usual order.

Repetition penalty, temperature, top-k, top-p, as transformers applies them. The filters that are
off cost nothing: the settings are static, and what they leave out is not compiled.

Shape suffixes: B batch, V vocabulary.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

COLDEST = 1e-6  # below it, dividing by the temperature overflows float32; 0 says the same exactly


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    The default is nucleus sampling, a little sharpened, and not greedy decoding: base models fall
    into repetition when the likeliest token is always taken (Holtzman et al., arXiv 1904.09751),
    and then show the decoder's weakness instead of what they know.
    """

    temperature: float = 0.8  # 0 takes the likeliest token
    top_k: int | None = None  # only the k likeliest tokens
    top_p: float = 0.95  # only the fewest tokens that hold this probability; 1 keeps all
    repetition_penalty: float = 1.0  # above 1: against tokens of the prompt and of the text so far

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be meant."""
        if not (self.temperature == 0 or COLDEST <= self.temperature < math.inf):
            raise ValueError(
                f"temperature={self.temperature}: must be 0, which is greedy, or at least {COLDEST}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k}: must be at least 1; leave it out to turn it off")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty}: must be above 0; 1 turns it off"
            )


def penalize(logits_BV: jax.Array, seen_BV: jax.Array, penalty: float) -> jax.Array:
    """Makes the tokens seen less likely: CTRL's penalty (arXiv 1909.05858) as in transformers.

    CTRL divides; a negative logit has to be multiplied, or the penalty would be a reward.
    """
    penalized_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, penalized_BV, logits_BV)


def keep_top_k(logits_BV: jax.Array, k: int) -> jax.Array:
    """Sets all but the k largest logits of a row to -inf; ties with the k-th stay."""
    top_Bk, _ = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[-1]))
    return jnp.where(logits_BV < top_Bk[:, -1:], -jnp.inf, logits_BV)


def keep_top_p(logits_BV: jax.Array, p: float) -> jax.Array:
    """Sets all but the fewest likeliest tokens whose probability reaches p to -inf; ties stay."""
    sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    last_B1 = jnp.min(jnp.where(before_BV < p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV < last_B1, -jnp.inf, logits_BV)


def filter_logits(sampling: Sampling, logits_BV: jax.Array) -> jax.Array:
    """Returns the logits of the distribution that is sampled from (temperature above 0)."""
    # The largest becomes 0, so that a small temperature makes no infinity of it.
    logits_BV = logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p < 1:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    return logits_BV


def row_keys(seed: int, num_rows: int) -> jax.Array:
    """Returns one key per row, a function of the seed and the row's number only."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(num_rows))


@partial(jax.jit, static_argnames=("sampling", "num_tokens"), donate_argnames="seen_BV")
def sample(
    sampling: Sampling,
    num_tokens: int,
    logits_BV: jax.Array,
    seen_BV: jax.Array,
    keys_B: jax.Array,
    step: jax.Array | int,
) -> tuple[jax.Array, jax.Array]:
    """Returns the next tokens_B, and seen_BV with them added.

    A row's token depends on its own logits, key and step, not on the other rows.

    Args:
      num_tokens: size of the tokenizer; the columns from there on are padding, never drawn.
      logits_BV: float32.
      seen_BV: true for the tokens of each row's prompt and text so far; donated.
      keys_B: see `row_keys`.
    """
    B, V = logits_BV.shape
    logits_BV = jnp.where(jnp.arange(V) < num_tokens, logits_BV, -jnp.inf)
    if sampling.repetition_penalty != 1:
        logits_BV = penalize(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0:
        tokens_B = jnp.argmax(logits_BV, axis=-1)
    else:
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        tokens_B = jax.vmap(jax.random.categorical)(keys_B, filter_logits(sampling, logits_BV))
    tokens_B = tokens_B.astype(jnp.int32)
    return tokens_B, seen_BV.at[jnp.arange(B), tokens_B].set(True)
