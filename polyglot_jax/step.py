"""One training step and one evaluation step: pure functions of (experiment, state, batch).

`train` jits them over a mesh; the benchmarks and `plan` compile the very same functions.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from polyglot_jax.config import Experiment, NeoxConfig
from polyglot_jax.health import guard as guards
from polyglot_jax.mesh import batch_sharding, constrain, named_sharding, replicated
from polyglot_jax.optimizer import make_optimizer, make_schedule

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """A pytree of arrays. `step` is the number of updates done, or skipped by the guard."""

    step: jax.Array  # int32 scalar
    params: Any
    opt_state: Any
    guard: guards.Guard


def family(config: NeoxConfig) -> Any:
    """Returns the module of the model's family.

    A family gives init(config, key), logical_axes(config), loss_sum_and_weight(config, params,
    batch, key), num_params(config) and flops_per_token(config, seq_len).
    """
    return importlib.import_module(f"polyglot_jax.models.{config.family}")


# ---- state


def init_params(experiment: Experiment) -> Any:
    """Returns fresh float32 parameters from train.seed."""
    key = jax.random.key(experiment.train.seed)
    return family(experiment.model).init(experiment.model, key)


def init_state(experiment: Experiment, params: Any) -> TrainState:
    """Returns the state before the first update, around the given parameters."""
    optimizer = make_optimizer(experiment.optimizer, experiment.train.steps, params)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        guard=guards.fresh(),
    )


def abstract_params(model: NeoxConfig, mesh: Mesh) -> Any:
    """Returns the parameters as `jax.ShapeDtypeStruct`s that carry their shardings on the mesh.

    Raises:
      ValueError: a parameter has no rule or does not divide, see `polyglot_jax.mesh`.
    """

    def place(path: Any, leaf: jax.ShapeDtypeStruct, names: tuple[str, ...]) -> Any:
        where = "/".join(str(key.key) for key in path)
        return _placed(leaf, named_sharding(mesh, names, leaf.shape, where))

    params = jax.eval_shape(lambda: family(model).init(model, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(place, params, family(model).logical_axes(model))


def abstract_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """Returns the state as `abstract_params` does its parameters.

    The optimizer's moments lie as their parameters do; its counters and the guard are replicated.

    Raises:
      ValueError: see `abstract_params`.
    """
    params = abstract_params(experiment.model, mesh)
    state = jax.eval_shape(lambda p: init_state(experiment, p), params)
    optimizer = make_optimizer(experiment.optimizer, experiment.train.steps, params)

    def is_masked(leaf: Any) -> bool:
        return isinstance(leaf, optax.MaskedNode)  # stands for a frozen parameter

    opt_shardings = optax.tree_utils.tree_map_params(
        optimizer,
        lambda leaf, sharding: leaf if is_masked(leaf) else sharding,
        state.opt_state,
        shardings_of(params),
        transform_non_params=lambda leaf: replicated(mesh),
        is_leaf=is_masked,
    )
    everywhere: Any = replicated(mesh)
    shardings = TrainState(
        step=everywhere,
        params=shardings_of(params),
        opt_state=opt_shardings,
        guard=jax.tree.map(lambda _: everywhere, state.guard),
    )
    return jax.tree.map(_placed, state, shardings)


def _placed(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def shardings_of(abstract: Any) -> Any:
    """Returns the tree of shardings of a tree of `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


# ---- steps


def train_step(
    experiment: Experiment, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Does one update, or skips it: see `polyglot_jax.health.guard`.

    A skipped update leaves parameters and optimizer as they were, its count of updates included,
    and so the learning rate of the next one too; step and data go on.

    Args:
      batch: arrays with the examples of the update along the leading dimension, in order.
    Returns:
      The new state (no new step is half-applied), and scalars. float32: loss (nats per unit of
      weight), weight, grad_norm (of all parameters, before clipping), learning_rate,
      bits_per_byte; int32: nonfinite, nonfinite_in_a_row, spikes, last_spike (see `Guard`).
    """
    key = jax.random.fold_in(jax.random.key(experiment.train.seed), state.step)
    loss_sum, weight, grads = _accumulate_gradients(experiment, state.params, batch, key)
    grads = jax.tree.map(lambda g: g / weight, grads)

    optimizer = make_optimizer(experiment.optimizer, experiment.train.steps, state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    loss, grad_norm = loss_sum / weight, optax.tree.norm(grads)
    is_applied, guard = guards.judge(
        state.guard,
        state.step,
        loss,
        grad_norm,
        max_nonfinite=experiment.health.max_nonfinite,
        sigma=experiment.health.spike_sigma,
        phase_starts=[phase.from_step for phase in experiment.data.plan],
    )
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(is_applied, new, old),
        (params, opt_state),
        (state.params, state.opt_state),
    )
    schedule = make_schedule(experiment.optimizer, experiment.train.steps)
    skipped = state.guard.nonfinite + state.guard.spikes
    metrics = {
        "loss": loss,
        "weight": weight,
        "grad_norm": grad_norm,
        "learning_rate": schedule(state.step - skipped),
        "bits_per_byte": loss_sum / jnp.log(2.0) / jnp.sum(batch["num_bytes"]),
        "nonfinite": guard.nonfinite,
        "nonfinite_in_a_row": guard.nonfinite_in_a_row,
        "spikes": guard.spikes,
        "last_spike": guard.last_spike,
    }
    new_state = TrainState(step=state.step + 1, params=params, opt_state=opt_state, guard=guard)
    return new_state, metrics


def _accumulate_gradients(
    experiment: Experiment, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    """Sums loss, weight and gradient over the microbatches of a batch.

    Sums are divided once, by the caller: a mean of means would give the tokens of a short
    microbatch more weight.
    """
    accumulation = experiment.train.accumulation
    loss_sum_and_weight = family(experiment.model).loss_sum_and_weight

    def loss_fn(params: Any, microbatch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return loss_sum_and_weight(experiment.model, params, microbatch, key)

    def microstep(carry: Any, xs: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        microbatch, i = xs
        microbatch = {k: constrain(v, "batch") for k, v in microbatch.items()}
        (loss_sum, weight), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, microbatch, jax.random.fold_in(key, i)
        )
        return jax.tree.map(jnp.add, carry, (loss_sum, weight, grads)), None

    # Microbatch i takes every accumulation-th example, so each device cuts up its own examples.
    microbatches = {
        k: v.reshape(-1, accumulation, *v.shape[1:]).swapaxes(0, 1) for k, v in batch.items()
    }
    zeros = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, params))
    sums, _ = jax.lax.scan(microstep, zeros, (microbatches, jnp.arange(accumulation)))
    return sums


def eval_step(model: NeoxConfig, params: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns the sums of loss (nats), weight and bytes over a held-out batch."""
    loss_sum, weight = family(model).loss_sum_and_weight(model, params, batch, jax.random.key(0))
    return {"loss_sum": loss_sum, "weight": weight, "num_bytes": jnp.sum(batch["num_bytes"])}


# ---- compiled over a mesh


def jit_init(experiment: Experiment, mesh: Mesh) -> Any:
    """Returns the compiled initialiser () -> TrainState; every array is born on its devices."""
    shardings = shardings_of(abstract_state(experiment, mesh))
    return jax.jit(lambda: init_state(experiment, init_params(experiment)), out_shardings=shardings)


def jit_train_step(experiment: Experiment, mesh: Mesh) -> Any:
    """Returns the compiled (state, batch) -> (state, metrics); the old state is given up.

    Call it under `jax.set_mesh(mesh)`.
    """
    shardings = shardings_of(abstract_state(experiment, mesh))
    return jax.jit(
        lambda state, batch: train_step(experiment, state, batch),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def jit_eval_step(model: NeoxConfig, mesh: Mesh) -> Any:
    """Returns the compiled (params, batch) -> sums. Call it under `jax.set_mesh(mesh)`."""
    return jax.jit(
        lambda params, batch: eval_step(model, params, batch),
        in_shardings=(shardings_of(abstract_params(model, mesh)), batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )
