"""Rotary position embedding on the first dimensions of each head, as GPT-NeoX does it.

Shape suffixes: B batch, T time, H heads, K head dim, R rotary dims.
"""

import jax
import jax.numpy as jnp

from polyglot_jax.config import NeoxConfig


def rotary_angles(config: NeoxConfig, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns cos and sin of the angles, float32 [B, T, 1, R/2]."""
    R = config.rotary_dims
    inverse_frequency = config.rotary_base ** (-jnp.arange(0, R, 2, dtype=jnp.float32) / R)
    angles = positions_BT[..., None, None].astype(jnp.float32) * inverse_frequency
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x_BTHK: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the first R dims of each head, halves against each other (not GPT-J's pairs)."""
    half = cos.shape[-1]
    # In float32: bfloat16 has 8 bits, too few for the product of a long position's angle.
    x1 = x_BTHK[..., :half].astype(jnp.float32)
    x2 = x_BTHK[..., half : 2 * half].astype(jnp.float32)
    rotated = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
    return jnp.concatenate([rotated.astype(x_BTHK.dtype), x_BTHK[..., 2 * half :]], axis=-1)
