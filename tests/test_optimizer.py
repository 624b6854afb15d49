"""Schedules by their published values, and which parameters are decayed and trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax.config import NeoxConfig, OptimizerConfig
from polyglot_jax.models import neox
from polyglot_jax.optimizer import decay_mask, make_optimizer, make_schedule, trainable_mask

CONFIG = OptimizerConfig(learning_rate=2e-4, min_learning_rate=2e-5, decay_steps=102_000)
MODEL = NeoxConfig(
    vocab_size=8, num_layers=2, d_model=8, num_heads=2, d_ff=16, rotary_pct=0.5, max_seq_len=8
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(neox.init, static_argnums=0)(MODEL, jax.random.key(0))


def paths(mask):
    flat = jax.tree_util.tree_leaves_with_path(mask)
    return {"/".join(key.key for key in path) for path, chosen in flat if chosen}


# ---- schedules


@pytest.mark.parametrize(
    ("t", "rate"),  # GPT-NeoX's AnnealingLR for this run
    [
        (0, 0.0),
        (510, 1.0e-4),
        (1_020, 2.0e-4),
        (10_000, 1.962e-4),
        (51_000, 1.0314e-4),
        (80_000, 2.41e-5),
        (90_000, 2.0e-5),
        (101_999, 2.0e-5),
        (150_000, 2.0e-5),
    ],
)
def test_neox_cosine(t, rate):
    schedule = make_schedule(CONFIG, steps=7)
    np.testing.assert_allclose(schedule(t), rate, rtol=3e-4)


@pytest.mark.parametrize(
    ("t", "rate"),  # of the way from 1,020 to 102,000: none, a quarter, half, three, all
    [
        (510, 1.0e-4),
        (1_020, 2.0e-4),
        (26_265, 2e-5 + 1.8e-4 * 0.8535534),
        (51_510, 1.1e-4),
        (76_755, 2e-5 + 1.8e-4 * 0.1464466),
        (102_000, 2.0e-5),
        (150_000, 2.0e-5),
    ],
)
def test_cosine(t, rate):
    schedule = make_schedule(dataclasses.replace(CONFIG, schedule="cosine"), steps=7)
    np.testing.assert_allclose(schedule(t), rate, rtol=1e-5)


def test_schedule_spans_the_run_by_default():
    config = dataclasses.replace(CONFIG, decay_steps=None)
    assert make_schedule(config, steps=102_000)(51_000) == make_schedule(CONFIG, 1)(51_000)


# ---- masks


def test_norms_and_biases_are_not_decayed(params):
    assert paths(decay_mask(params)) == {
        "embed_in",
        "embed_out/kernel",
        "layers/attention/dense/kernel",
        "layers/attention/query_key_value/kernel",
        "layers/mlp/dense_4h_to_h/kernel",
        "layers/mlp/dense_h_to_4h/kernel",
    }


def test_trainable_mask_is_a_search(params):
    config = dataclasses.replace(CONFIG, trainable=r"attention/.*bias|embed_out")
    assert paths(trainable_mask(config, params)) == {
        "embed_out/kernel",
        "layers/attention/dense/bias",
        "layers/attention/query_key_value/bias",
    }


def test_frozen_parameters_do_not_move(params):
    config = dataclasses.replace(CONFIG, trainable="mlp", warmup_fraction=0.0)
    optimizer = make_optimizer(config, 10, params)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    moved = jax.tree.map(lambda update: bool((update != 0).any()), updates)
    assert paths(moved) == {
        path for path in paths(jax.tree.map(lambda _: 1, params)) if "mlp" in path
    }


@pytest.mark.parametrize(
    ("trainable", "message"),
    [("[", r"trainable='\[' is not a regular expression"), ("lora", "matches no parameter")],
)
def test_trainable_that_means_nothing_raises(params, trainable, message):
    with pytest.raises(ValueError, match=message):
        trainable_mask(dataclasses.replace(CONFIG, trainable=trainable), params)
