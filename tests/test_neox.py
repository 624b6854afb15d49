"""The model by itself: published counts, initialisers, causality, rotation, remat, cache."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax.config import load_experiment
from polyglot_jax.models import neox
from tests.oracle import random_params, tiny

CONFIG = tiny()
jitted_apply = jax.jit(neox.apply, static_argnums=0)


def apply(*arguments):
    """Returns numpy: to compare eagerly would compile each small operation."""
    return jax.device_get(jitted_apply(*arguments))


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def tokens(shape, seed=0):
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, shape, dtype=np.int32)


# ---- published numbers

PUBLISHED = {  # parameters, GFLOPs per token at 2,048
    "ko_1p3b": (1_331_810_304, 8.22),
    "ko_3p8b": (3_809_974_272, 23.51),
    "ko_5p8b": (5_885_059_072, 35.97),
    "ko_12p8b": (12_893_603_840, 78.94),
}


def count(config):
    shapes = jax.eval_shape(lambda: neox.init(config, jax.random.key(0)))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    config = load_experiment(name).model
    num_params, gflops = PUBLISHED[name]
    assert count(config) == neox.num_params(config) == num_params
    assert neox.flops_per_token(config, 2048) / 1e9 == pytest.approx(gflops, abs=0.005)


def test_count_where_d_ff_is_not_four_times_d_model():
    assert count(CONFIG) == neox.num_params(CONFIG)


def test_count_in_the_report_is_that_of_four_model_parallel_ranks():
    c = load_experiment("ko_12p8b").model
    padding = 2 * (30_208 - c.vocab_size) * c.d_model  # rows of embedding and head: 128 x 4 | V
    # What every rank held: two norms and the biases of the two row-parallel matrices; the last norm
    replicated = c.num_layers * 6 * c.d_model + 2 * c.d_model
    assert neox.num_params(c) + padding + 3 * replicated == 12_898_631_680


# ---- initialisers


@pytest.mark.parametrize("init", ["small_wang", "normal"])
def test_initial_standard_deviations(init):
    config = tiny(init=init, d_model=192, d_ff=768, num_layers=3, vocab_size=512)
    D, N = config.d_model, config.num_layers
    small, wang = math.sqrt(2 / (5 * D)), 2 / (N * math.sqrt(D))
    if init == "normal":
        small, wang = 0.02, 0.02 / math.sqrt(2 * N)
    params = jax.device_get(jax.jit(neox.init, static_argnums=0)(config, jax.random.key(1)))
    expected = {
        "embed_in": small,
        "embed_out/kernel": small,
        "layers/attention/query_key_value/kernel": small,
        "layers/attention/dense/kernel": wang,
        "layers/mlp/dense_h_to_4h/kernel": small,
        "layers/mlp/dense_4h_to_h/kernel": wang,
    }
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        if name in expected:
            np.testing.assert_allclose(np.std(x), expected[name], rtol=0.02)
            assert abs(np.mean(x)) < 0.02 * expected[name]
        else:
            assert (x == (1 if name.endswith("scale") else 0)).all(), name
    kernel = params["layers"]["mlp"]["dense_h_to_4h"]["kernel"]
    assert not np.array_equal(kernel[0], kernel[1])  # each layer draws its own


@pytest.mark.parametrize(
    ("name", "small", "wang"),
    [
        ("ko_1p3b", 0.013975, 0.001841),
        ("ko_3p8b", 0.011411, 0.001128),
        ("ko_5p8b", 0.009882, 0.001116),
        ("ko_12p8b", 0.008839, 0.000699),
    ],
)
def test_published_initialisers(name, small, wang):
    config = dataclasses.replace(load_experiment(name).model, init="small_wang")
    assert neox._input_std(config) == pytest.approx(small, abs=5e-7)
    assert neox._output_std(config) == pytest.approx(wang, abs=5e-7)


# ---- the forward pass


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_logits_are_finite_float32(params, compute_dtype):
    config = dataclasses.replace(CONFIG, compute_dtype=compute_dtype)
    logits_BTV, cache = apply(config, params, tokens((2, 16)))
    assert logits_BTV.shape == (2, 16, CONFIG.vocab_size)
    assert logits_BTV.dtype == jnp.float32
    assert cache is None
    assert np.isfinite(logits_BTV).all()


@pytest.mark.parametrize("t", [1, 7, 15])
def test_causality_is_exact(params, t):
    tokens_BT = tokens((2, 16))
    changed_BT = tokens_BT.copy()
    changed_BT[:, t] = (changed_BT[:, t] + 1) % CONFIG.vocab_size
    before, _ = apply(CONFIG, params, tokens_BT)
    after, _ = apply(CONFIG, params, changed_BT)
    np.testing.assert_array_equal(before[:, :t], after[:, :t])
    assert (before[:, t:] != after[:, t:]).any(axis=-1).all()


@pytest.mark.parametrize("rotary_pct", [0.25, 0.5, 1.0])
def test_rotation_depends_on_distance_only(rotary_pct):
    config = tiny(rotary_pct=rotary_pct)
    q_BTHK, k_BTHK = np.random.default_rng(0).standard_normal((2, 1, 1, 3, 16), dtype=np.float32)

    def score(query, key):
        q = neox.rotate(q_BTHK, *neox.rotary_angles(config, jnp.array([[query]])))
        k = neox.rotate(k_BTHK, *neox.rotary_angles(config, jnp.array([[key]])))
        return np.einsum("BTHK,BTHK->H", q, k)

    for distance in (0, 1, 10, 40):
        np.testing.assert_allclose(score(100 + distance, 100), score(distance, 0), atol=1e-4)
    assert np.abs(score(1, 0) - score(2, 0)).min() > 1e-2


def test_rotation_keeps_the_rest_of_the_head_and_every_length():
    x_BTHK = np.random.default_rng(0).standard_normal((2, 5, 3, 16), dtype=np.float32)
    rotated = neox.rotate(x_BTHK, *neox.rotary_angles(tiny(rotary_pct=0.25), jnp.arange(5)[None]))
    np.testing.assert_array_equal(rotated[..., 4:], x_BTHK[..., 4:])
    np.testing.assert_array_equal(rotated[:, 0], x_BTHK[:, 0])
    lengths = [np.hypot(x[..., :2], x[..., 2:4]) for x in (x_BTHK, np.asarray(rotated))]
    np.testing.assert_allclose(*lengths, rtol=1e-5)  # halves are turned against each other


def test_remat_policies_give_the_same_gradients(params):
    batch = {
        "inputs": tokens((2, 16)),
        "targets": tokens((2, 16), seed=1),
        "weights": np.ones((2, 16), np.float32),
    }

    def gradients(remat):
        config = dataclasses.replace(CONFIG, remat=remat)
        loss = lambda p: neox.loss_sum_and_weight(config, p, batch, jax.random.key(0))[0]  # noqa: E731
        return jax.device_get(jax.jit(jax.grad(loss))(params))

    reference = gradients("none")
    for remat in neox.REMAT_POLICIES:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()),
            gradients(remat),
            reference,
        )


def test_dots_keep_the_flash_attention_of_cudnn():
    """JAX's own policy knows products only, and would run the kernel again in the backward."""
    keeps = neox.REMAT_POLICIES["dots"]
    assert keeps(SimpleNamespace(name="dot_product_attention_fwd_wrapper"))
    assert not keeps(jax.lax.exp_p)


def test_embedding_gradient_is_summed_in_float32(params):
    """A token that occurs a thousand times: sums of bfloat16 stop growing after 256 ones."""
    batch = {
        "inputs": np.zeros((64, 32), np.int32),
        "targets": tokens((64, 32)),
        "weights": np.ones((64, 32), np.float32),
    }

    def gradient(compute_dtype):
        config = dataclasses.replace(CONFIG, compute_dtype=compute_dtype)
        loss = lambda p: neox.loss_sum_and_weight(config, p, batch, jax.random.key(0))[0]  # noqa: E731
        return jax.device_get(jax.jit(jax.grad(loss))(params))["embed_in"][0]

    exact = gradient("float32")
    error = np.linalg.norm(gradient("bfloat16") - exact) / np.linalg.norm(exact)
    assert error < 0.02


# ---- the cache

LENGTHS = (12, 5, 1)  # of the prompts, padded on the left to the longest
NEW = 6


def test_cached_decoding_equals_the_full_forward(params):
    T = max(LENGTHS)
    rows = [tokens((length + NEW,), seed) for seed, length in enumerate(LENGTHS)]
    padded_BS = np.stack([np.pad(row, (T + NEW - len(row), 0)) for row in rows])
    mask_BS = np.arange(T + NEW) >= T - np.array(LENGTHS)[:, None]

    cache = neox.init_cache(CONFIG, jnp.asarray(mask_BS))
    blocks = []
    for start, end in (
        (0, T),
        *((T + i, T + i + 1) for i in range(NEW - 2)),
        (T + NEW - 2, T + NEW),
    ):
        logits_BTV, cache = apply(CONFIG, params, padded_BS[:, start:end], cache)
        blocks.append(logits_BTV)
    assert int(cache.length) == T + NEW
    cached_BTV = np.concatenate(blocks, axis=1)
    for row, cached_TV in zip(rows, cached_BTV, strict=True):
        full_BTV, _ = apply(CONFIG, params, row[None])
        scale = np.abs(full_BTV).max()
        np.testing.assert_allclose(cached_TV[-len(row) :], full_BTV[0], atol=1e-5 * scale)
    assert np.isfinite(cached_BTV).all()  # padding too: a NaN there would spread
