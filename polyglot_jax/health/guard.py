"""The part of health that lives on the device: which updates are skipped, decided in the step.

An update is skipped where the loss or the gradient is not finite, and where both stand out of the
128 steps before as a spike. Nothing goes to the host for it: the verdict is a scalar that selects
between new and old parameters, and the losses it needs are ring buffers in the TrainState. A row of
updates that are not finite stops the device by itself: the host, which looks every few steps, finds
it stopped even where finite ones followed.

The idea, the window of 128, the 6 sigma and the 64 samples are OLMo-core's SkipStepOptimizer; there
either of the two values suffices, here it takes both, since a large gradient alone is clipped.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 128  # steps
ENOUGH = 64  # samples from which on a spike is a spike
FLAT = 1e-3  # of the mean: losses deviate by more, if they are not all the same


@flax.struct.dataclass
class Guard:
    """What the verdicts on coming steps need. Suffix: W window."""

    losses_W: jax.Array  # float32 rings; what is not finite stays outside
    grad_norms_W: jax.Array
    samples: jax.Array  # int32, put into the rings since the data's phase began
    nonfinite: jax.Array  # int32, updates skipped so far because they were not finite
    nonfinite_in_a_row: jax.Array  # int32, the newest of them; from the limit on, all that follow
    spikes: jax.Array  # int32, updates skipped so far as spikes
    last_spike: jax.Array  # int32, number of the newest of them; 0: none yet


def fresh() -> Guard:
    """Returns the guard of a run that begins."""
    rings = (jnp.zeros(WINDOW, jnp.float32) for _ in range(2))  # no shared buffer: it is donated
    return Guard(*rings, *(jnp.zeros((), jnp.int32) for _ in range(5)))


def judge(
    guard: Guard,
    step: jax.Array,
    loss: jax.Array,
    grad_norm: jax.Array,
    *,
    max_nonfinite: int,
    sigma: float | None,
    phase_starts: Sequence[int],
) -> tuple[jax.Array, Guard]:
    """Returns whether to apply an update, and the guard after it.

    A spike enters the rings too, but as no more than 12 sigma, or one would hide the next smaller
    one. So loss and gradient that stay high, by 40 sigma say, are the new normal after 5 steps.

    Args:
      step: updates before this one.
      max_nonfinite: so many in a row that are not finite, and none is applied any more.
      sigma: standard deviations above the window's mean that make a spike; None: there are none.
      phase_starts: steps with which other data begins. What was normal before does not count.
    """
    is_new_phase = jnp.isin(step, np.array(phase_starts, np.int32))
    samples = jnp.where(is_new_phase, 0, guard.samples)
    is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    is_sound = is_finite & (guard.nonfinite_in_a_row < max_nonfinite)
    is_spike = jnp.bool_(False)
    if sigma is not None:
        high_loss, highest_loss = _levels(guard.losses_W, samples, sigma)
        high_norm, highest_norm = _levels(guard.grad_norms_W, samples, sigma)
        stands_out = (loss > high_loss) & (grad_norm > high_norm)
        is_spike = is_sound & stands_out & (samples >= ENOUGH)
        loss = jnp.where(is_spike, jnp.minimum(loss, highest_loss), loss)
        grad_norm = jnp.where(is_spike, jnp.minimum(grad_norm, highest_norm), grad_norm)

    place = samples % WINDOW

    def put(ring_W: jax.Array, value: jax.Array) -> jax.Array:
        return ring_W.at[place].set(jnp.where(is_finite, value, ring_W[place]))

    return is_sound & ~is_spike, Guard(
        losses_W=put(guard.losses_W, loss),
        grad_norms_W=put(guard.grad_norms_W, grad_norm),
        samples=samples + is_finite,
        nonfinite=guard.nonfinite + ~is_sound,
        nonfinite_in_a_row=jnp.where(is_sound, 0, guard.nonfinite_in_a_row + 1),
        spikes=guard.spikes + is_spike,
        last_spike=jnp.where(is_spike, step + 1, guard.last_spike),
    )


def _levels(ring_W: jax.Array, samples: jax.Array, sigma: float) -> tuple[jax.Array, jax.Array]:
    """Returns above what a value is a spike, and the most that one counts for afterwards."""
    is_filled_W = jnp.arange(WINDOW) < samples
    mean = jnp.mean(ring_W, where=is_filled_W)
    deviation = jnp.std(ring_W, where=is_filled_W)
    # Of values that are all the same a multiple of the deviation would keep others out for ever.
    widest = jnp.maximum(deviation, FLAT * jnp.abs(mean))
    return mean + sigma * deviation, mean + 2 * sigma * widest
