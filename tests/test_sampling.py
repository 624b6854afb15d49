"""The filters on logits: what they keep, in numbers that can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyglot_jax.sampling import (
    Sampling,
    filter_logits,
    keep_top_k,
    keep_top_p,
    penalize,
    row_keys,
    sample,
)

OFF = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "repetition_penalty": 1.0}
LOGITS = np.log([[0.5, 0.25, 0.15, 0.1], [0.1, 0.2, 0.3, 0.4]]).astype(np.float32)


def kept(logits):
    return np.isfinite(np.asarray(logits)).tolist()


def draw(logits_BV, num_draws, seed=0, num_tokens=None, **settings):
    """Returns draws [num_draws, B]: one step per draw, as in a long text."""
    logits_BV = jnp.asarray(logits_BV)
    B, V = logits_BV.shape
    keys = row_keys(seed, B)
    seen = jnp.zeros((B, V), bool)
    sampling = Sampling(**OFF | settings)

    def step(seen, i):
        tokens, _ = sample(sampling, num_tokens or V, logits_BV, seen, keys, i)
        return seen, tokens

    return np.asarray(jax.lax.scan(step, seen, jnp.arange(num_draws))[1])


def test_top_k_keeps_the_k_largest() -> None:
    assert kept(keep_top_k(LOGITS, 2)) == [[True, True, False, False], [False, False, True, True]]
    assert kept(keep_top_k(LOGITS, 100)) == [[True] * 4] * 2


@pytest.mark.parametrize(
    ("p", "expected"), [(0.01, 1), (0.45, 1), (0.55, 2), (0.8, 3), (0.95, 4), (1.0, 4)]
)
def test_top_p_keeps_the_fewest_that_reach_p(p: float, expected: int) -> None:
    assert kept(keep_top_p(LOGITS[:1], p)) == [[i < expected for i in range(4)]]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    p=st.floats(0.05, 0.99),
    temperature=st.sampled_from([1e-6, 0.3, 1.0, 5.0]),
)
def test_top_p_is_the_smallest_set_of_its_mass(seed: int, p: float, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(1, 50)).astype(np.float32) / temperature
    probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))[0].astype(np.float64)
    keep = np.isfinite(np.asarray(keep_top_p(logits, p)))[0]
    assert keep.any()
    assert probability[keep].min() >= probability[~keep].max(initial=0)
    assert probability[keep].sum() >= p - 1e-5
    assert probability[keep].sum() - probability[keep].min() < p + 1e-5


def test_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = jnp.array([[2.0, -2.0, 2.0, -2.0]])
    seen = jnp.array([[True, True, False, False]])
    np.testing.assert_array_equal(penalize(logits, seen, 2.0), [[1.0, -4.0, 2.0, -2.0]])


def test_seen_grows_by_the_token_drawn() -> None:
    seen = jnp.zeros(LOGITS.shape, bool)
    greedy = Sampling(temperature=0, repetition_penalty=1.5)
    tokens, seen = sample(greedy, 4, jnp.asarray(LOGITS), seen, row_keys(0, 2), 0)
    assert tokens.tolist() == [0, 3]
    np.testing.assert_array_equal(np.argwhere(seen), [[0, 0], [1, 3]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    draws = draw(LOGITS, 4000, temperature=temperature)
    expected = np.asarray(jax.nn.softmax(jnp.asarray(LOGITS) / temperature))
    for row in range(2):
        shares = np.bincount(draws[:, row], minlength=4) / len(draws)
        # four standard deviations of a share of 4000 draws are at most 0.032
        np.testing.assert_allclose(shares, expected[row], atol=0.032)


def test_filters_apply_to_the_tempered_distribution() -> None:
    """At temperature 0.5 the shares are .73 .18 .07 .03, so that p=.9 keeps two, not three."""
    cold = filter_logits(Sampling(**OFF | {"temperature": 0.5, "top_p": 0.9}), LOGITS[:1])
    warm = filter_logits(Sampling(**OFF | {"temperature": 1.0, "top_p": 0.9}), LOGITS[:1])
    assert (np.isfinite(cold).sum(), np.isfinite(warm).sum()) == (2, 3)


def test_top_k_before_top_p() -> None:
    """Of the best two, shares 2/3 and 1/3, p=.6 keeps one; of all four it would keep two."""
    both = filter_logits(Sampling(**OFF | {"top_k": 2, "top_p": 0.6}), LOGITS[:1])
    assert kept(both) == [[True, False, False, False]]


@pytest.mark.parametrize("temperature", [0, 1e-6, 100.0])
def test_padding_of_the_vocabulary_is_never_drawn(temperature: float) -> None:
    logits = np.array([[-50.0, -50.0, 1e4, 1e4]], np.float32)
    draws = draw(logits, 200, temperature=temperature, num_tokens=2, repetition_penalty=1.3)
    assert draws.max() < 2


def test_tiny_temperature_is_greedy() -> None:
    assert (draw(1e4 * LOGITS, 50, temperature=1e-6) == [0, 3]).all()


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    other = np.stack([LOGITS[0], LOGITS[1][::-1]])
    np.testing.assert_array_equal(draw(LOGITS, 100)[:, 0], draw(other, 100)[:, 0])
    np.testing.assert_array_equal(draw(LOGITS, 100)[:, 0], draw(LOGITS[:1], 100)[:, 0])


def test_equal_rows_draw_different_tokens() -> None:
    draws = draw(LOGITS[[0, 0]], 100)
    assert (draws[:, 0] != draws[:, 1]).any()
    assert (draws != draw(LOGITS[[0, 0]], 100, seed=1)).any()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 1e-9),
        ("top_k", 0),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", float("inf")),
    ],
)
def test_absurd_settings_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{setting}={value}: must be [^\n]+$"):
        Sampling(**{setting: value})
