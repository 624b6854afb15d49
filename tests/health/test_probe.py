"""The probe: what counts as repetition, and that it draws what generate draws."""

import jax
import numpy as np
import pytest

from polyglot_jax.generate import decode
from polyglot_jax.health import probe
from polyglot_jax.mesh import make_mesh
from polyglot_jax.sampling import Sampling
from polyglot_jax.step import abstract_params, init_params, shardings_of
from polyglot_jax.vocabulary import load_vocabulary
from tests.data.made import write_tokenizer
from tests.test_step import small_experiment

LOOP = [5, 6, 7]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (range(60), False),
        ([*range(50), *LOOP * 3], True),
        ([*range(50), *LOOP * 2], False),
        ([*range(50), 9, 9, 9], True),
        ([*LOOP * 10, 1, 2, 3, 4, 8, 9], False),  # it found its way out
        ([*range(16)] * 3, True),
        ([*range(17)] * 3, False),
        ([1, 1], False),
    ],
)
def test_a_loop(tokens, expected):
    assert probe.is_looping(list(tokens)) == expected


def test_measures():
    varied, stuck = np.arange(64), np.full(64, 3)
    assert probe.measure(np.stack([varied, varied])) == {
        "repetition": 0,  # within a text
        "distinct_2": 0.5,  # over all texts
        "looping": 0,
    }
    values = probe.measure(np.stack([varied, stuck]))
    assert values["looping"] == 0.5
    assert values["repetition"] == pytest.approx(60 / 122)


@pytest.mark.parametrize(
    ("repetition", "expected"),
    [
        ([], False),
        ([0.1, 0.2, 0.1], False),
        ([0.1, 0.6], True),
        ([0.1, 0.6, 0.7], False),  # told already
        ([0.9, 0.8, 0.7], False),  # a model that has just begun
        ([0.9, 0.1, 0.4, 0.6], True),
        ([0.1, 0.6, 0.1, 0.6], True),
    ],
)
def test_a_collapse_is_told_once(repetition, expected):
    records = [{"step": i, "probe/repetition": value} for i, value in enumerate(repetition)]
    assert probe.has_collapsed(records) == expected


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return load_vocabulary(write_tokenizer(tmp_path_factory.mktemp("v") / "tokenizer.json"))


def experiment(mesh):
    sets = ("model.num_layers=1", "model.max_seq_len=64", "model.vocab_size=384")
    return small_experiment(mesh, sets=sets)


def test_prompts_that_leave_no_room(vocabulary):
    e = experiment((1, 1, 1))
    mesh = make_mesh(e.mesh, jax.devices()[:1])
    shardings = shardings_of(abstract_params(e.model, mesh))
    with pytest.raises(ValueError, match=r"the longest has 51 tokens, and its text needs 16 of"):
        probe.jit_probe(e.model, mesh, shardings, vocabulary, ["", "가" * 17])


def test_draws_what_generate_draws_on_any_mesh(vocabulary):
    """Five rows on four parts of the batch axes: padded with rows that are not shown."""
    e = experiment((2, 2, 2))
    mesh = make_mesh(e.mesh)
    shardings = shardings_of(abstract_params(e.model, mesh))
    prompts = ["", "가", "나다", "a", "라"]
    params = init_params(e)
    with jax.set_mesh(mesh):
        drawn = probe.jit_probe(e.model, mesh, shardings, vocabulary, prompts)
        tokens_RT = np.asarray(drawn(jax.device_put(params, shardings)))
    assert tokens_RT.shape == (5, 58)
    alone = decode(
        e.model,
        params,
        [vocabulary.encode(prompt) for prompt in prompts] + [vocabulary.encode("")] * 3,
        max_new_tokens=58,
        num_tokens=len(vocabulary.token_bytes),
        sampling=Sampling(),
        seed=0,
    )
    want_RT = np.stack(list(alone), axis=1)[:5]
    assert np.mean(tokens_RT == want_RT) > 0.9  # sums in another order may turn a draw
    assert isinstance(probe.text_of(vocabulary, tokens_RT[0].tolist()), str)
