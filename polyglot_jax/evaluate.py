"""Held-out loss and bits per byte: the same function during training and from outside."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from polyglot_jax.data.held_out import HeldOut
from polyglot_jax.mesh import local_rows, put_batch


def evaluate(
    eval_step: Any,
    params: Any,
    held_out: HeldOut,
    mesh: Mesh,
) -> dict[str, float]:
    """Returns loss (nats per token), bits_per_byte, and the tokens and bytes they are over.

    Args:
      eval_step: from `step.jit_eval_step`, called under `jax.set_mesh(mesh)`.
      params: on the mesh.
    """
    batch_size = held_out.examples.shape[1]
    sums = {"loss_sum": 0.0, "weight": 0.0, "num_bytes": 0.0}
    for batch in held_out.batches(local_rows(mesh, batch_size)):
        batch_sums = jax.device_get(eval_step(params, put_batch(mesh, batch, batch_size)))
        for name, value in batch_sums.items():
            sums[name] += float(value)
    return {
        "loss": sums["loss_sum"] / sums["weight"],
        "bits_per_byte": sums["loss_sum"] / np.log(2) / sums["num_bytes"],
        "tokens": sums["weight"],
        "bytes": sums["num_bytes"],
    }
