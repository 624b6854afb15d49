"""The guard: what is skipped, and that skipping changes nothing else."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax.health import guard as guards
from polyglot_jax.mesh import make_mesh, put_batch
from polyglot_jax.step import abstract_state, jit_init, jit_train_step, shardings_of
from tests.test_step import BATCH, batches, small_experiment


@partial(jax.jit, static_argnames=("sigma", "phase_starts"))
def judge_all(losses, grad_norms, sigma, phase_starts):
    def one(guard, given):
        applied, guard = guards.judge(
            guard, *given, max_nonfinite=10, sigma=sigma, phase_starts=phase_starts
        )
        return guard, applied

    given = jnp.arange(len(losses)), losses, grad_norms
    return jax.lax.scan(one, guards.fresh(), given)


def judged(losses, grad_norms, sigma=6.0, phase_starts=(0,)):
    """Returns what was applied, and the last guard, of a run with these values."""
    given = (np.asarray(values, np.float32) for values in (losses, grad_norms))
    guard, applied = jax.device_get(judge_all(*given, sigma, phase_starts))
    return applied, guard


def ordinary(seed=0, steps=300):
    rng = np.random.default_rng(seed)
    return 3 + 0.1 * rng.normal(size=steps), 1 + 0.05 * rng.normal(size=steps)


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_steps_are_applied(seed):
    assert judged(*ordinary(seed))[0].all()


@pytest.mark.parametrize(
    ("at", "loss", "grad_norm", "is_skipped"),
    [
        (200, 5.0, 3.0, True),
        (200, 5.0, 1.0, False),  # a hard batch
        (200, 3.0, 9.0, False),  # clipped
        (63, 5.0, 3.0, False),  # too early to know
        (64, 5.0, 3.0, True),
        (200, 0.1, 0.1, False),  # below is no spike
        (3, np.nan, 1.0, True),
        (3, 3.0, np.inf, True),
        (200, -np.inf, np.nan, True),
    ],
)
def test_one_unusual_step(at, loss, grad_norm, is_skipped):
    losses, grad_norms = ordinary()
    losses[at], grad_norms[at] = loss, grad_norm
    applied, guard = judged(losses, grad_norms)
    assert np.flatnonzero(~applied).tolist() == [at] * is_skipped
    is_finite = np.isfinite([loss, grad_norm]).all()
    assert (guard.spikes, guard.nonfinite) == (is_skipped and is_finite, not is_finite)
    assert guard.last_spike == (at + 1 if is_skipped and is_finite else 0)
    assert guard.nonfinite_in_a_row == 0
    assert np.isfinite(guard.losses_W).all()
    assert guard.samples == 300 - (not is_finite)


def test_without_sigma_nothing_spikes():
    losses, grad_norms = ordinary()
    losses[200], grad_norms[200] = 50, 50
    assert judged(losses, grad_norms, sigma=None)[0].all()


def test_a_new_level_is_taken_for_normal_after_a_few_steps():
    """Of 20 standard deviations of the loss, and 40 of the gradient norm."""
    losses, grad_norms = ordinary()
    losses[200:] += 2
    grad_norms[200:] += 2
    assert np.flatnonzero(~judged(losses, grad_norms)[0]).tolist() == [200, 201, 202, 203, 204]


def test_a_spike_does_not_hide_the_next():
    """Though it was a hundred times as far away, and the next is smaller."""
    losses, grad_norms = ordinary()
    for at, height in ((150, 200.0), (190, 4.0), (230, 2.0)):
        losses[at] += height
        grad_norms[at] += height
    assert np.flatnonzero(~judged(losses, grad_norms)[0]).tolist() == [150, 190, 230]


def test_flat_losses_may_rise():
    applied, _ = judged([1.0] * 100 + [5.0] * 100, [1.0] * 100 + [5.0] * 100)
    assert 0 < np.sum(~applied) < 20


def test_another_source_is_no_spike():
    losses, grad_norms = ordinary()
    losses[200:] += 2
    grad_norms[200:] += 2
    assert judged(losses, grad_norms, phase_starts=(0, 200))[0].all()


def test_not_finite_in_a_row():
    losses, grad_norms = ordinary()
    losses[297:] = np.nan
    assert judged(losses, grad_norms)[1].nonfinite_in_a_row == 3


@pytest.mark.parametrize(("row", "lost"), [(9, 9), (10, 20)])
def test_a_row_at_the_limit_stops_the_device_until_the_host_looks(row, lost):
    """Ten finite steps follow it: they are skipped too, and the row can still be seen."""
    losses, grad_norms = ordinary()
    losses[290 - row : 290] = np.nan
    applied, guard = judged(losses, grad_norms)
    assert np.flatnonzero(~applied).tolist() == list(range(290 - row, 290 - row + lost))
    assert (guard.nonfinite, guard.spikes) == (lost, 0)
    assert guard.nonfinite_in_a_row == (lost if row == 10 else 0)


@pytest.fixture(scope="module")
def small():
    experiment = small_experiment(sets=["model.num_layers=1"])
    mesh = make_mesh(experiment.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        train_step = jit_train_step(experiment, mesh)
        initial = jax.device_get(jit_init(experiment, mesh)())
        shardings = shardings_of(abstract_state(experiment, mesh))

        def run(given, step=0, **guard):
            guard = initial.guard.replace(**guard)
            state = initial.replace(step=np.int32(step), guard=guard)
            state = jax.device_put(jax.tree.map(np.copy, state), shardings)  # not aliased: donated
            metrics = None
            for batch in given:
                state, metrics = train_step(state, put_batch(mesh, batch, BATCH))
            return jax.device_get((state, metrics))

        yield run


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_batch_that_is_not_finite_leaves_no_trace(small):
    """Bit for bit: neither in parameters and optimizer, nor in the updates that follow."""
    first, second, third = batches(3)
    bad = second | {"weights": np.full_like(second["weights"], np.nan)}
    before, _ = small([first])
    skipped, metrics = small([first, bad])
    assert_equal((skipped.params, skipped.opt_state), (before.params, before.opt_state))
    assert (skipped.step, metrics["nonfinite"], metrics["nonfinite_in_a_row"]) == (2, 1, 1)
    assert np.isnan(metrics["loss"])
    went_on, metrics = small([first, bad, third])
    without, expected = small([first, third])
    assert_equal((went_on.params, went_on.opt_state), (without.params, without.opt_state))
    assert metrics["learning_rate"] == expected["learning_rate"]
    assert (went_on.step, metrics["nonfinite"], metrics["nonfinite_in_a_row"]) == (3, 1, 0)


def test_a_spike_leaves_no_trace(small):
    calm = np.full(guards.WINDOW, 0.01, np.float32)
    before = {"losses_W": calm, "grad_norms_W": calm, "samples": np.int32(100)}
    state, metrics = small(list(batches(1)), step=300, **before)
    fresh, _ = small([])
    assert_equal((state.params, state.opt_state), (fresh.params, fresh.opt_state))
    assert (metrics["spikes"], metrics["last_spike"], state.step) == (1, 301, 301)
