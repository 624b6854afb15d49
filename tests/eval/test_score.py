"""Scores do not depend on what else is scored, and are those of a sequence that stands alone."""

import dataclasses

import jax
import numpy as np
import pytest

from eval import score
from eval.request import Answer, Request
from polyglot_jax.config import MeshConfig
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_params, shardings_of
from tests.oracle import random_params, tiny

CONFIG = tiny(vocab_size=96)  # a multiple of the tensor axis
SIZES = score.Sizes(batch_tokens=256, head_columns=16)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda x: 0.5 * x, random_params(CONFIG))


def draw(num: int, seed: int = 0) -> list[Request]:
    """Long and short contexts, some longer than the model, with one to four choices."""
    rng = np.random.default_rng(seed)
    ids = lambda n: tuple(rng.integers(0, CONFIG.vocab_size, n).tolist())  # noqa: E731
    return [
        Request(ids(rng.integers(1, 90)), tuple(ids(n) for n in rng.integers(1, 12, 1 + i % 4)))
        for i in range(num)
    ]


def run(params, requests, sizes=SIZES, mesh=MeshConfig(data=1), config=CONFIG) -> list[Answer]:  # noqa: B008
    count = mesh.data * mesh.fsdp * mesh.tensor
    placed = make_mesh(mesh, jax.devices()[:count])
    on_mesh = jax.device_put(params, shardings_of(abstract_params(config, placed)))
    answers = dict(score.score(config, on_mesh, requests, placed, sizes))
    return [answers[i] for i in range(len(requests))]


def check_same(ours: list[Answer], theirs: list[Answer], tolerance: float = 1e-5) -> None:
    assert [(a.greedy, a.context_kept) for a in ours] == [
        (a.greedy, a.context_kept) for a in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.log_probs, b.log_probs, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return draw(24)


@pytest.fixture(scope="module")
def answers(params, requests) -> list[Answer]:
    return run(params, requests)


def test_equal_to_transformers_one_by_one(params, requests, answers) -> None:
    import torch

    from tests.oracle import make_model

    model = make_model(CONFIG, params).eval()
    for request, answer in zip(requests, answers, strict=True):
        for i, choice in enumerate(request.choices):
            ids = (request.context + choice)[-(CONFIG.max_seq_len + 1) :]
            with torch.no_grad():
                logits = model(torch.tensor([ids[:-1]])).logits[0, -len(choice) :]
            log_probs = logits.log_softmax(-1).numpy()[range(len(choice)), choice]
            assert answer.log_probs[i] == pytest.approx(log_probs.sum(), abs=1e-4)
            assert answer.greedy[i] == (logits.argmax(-1).tolist() == list(choice))
            assert answer.context_kept[i] == len(ids) - len(choice)


def test_the_likeliest_continuation_is_greedy(params) -> None:
    (first,) = run(params, [Request((5, 6, 7), tuple((i,) for i in range(96)))])
    assert sum(first.greedy) == 1
    assert first.greedy[int(np.argmax(first.log_probs))]
    assert np.exp(first.log_probs).sum() == pytest.approx(1, abs=1e-5)  # padding columns too


def test_order_company_and_shape_do_not_matter(params, requests, answers) -> None:
    order = np.random.default_rng(1).permutation(len(requests))
    shuffled = run(params, [requests[i] for i in order])
    check_same(shuffled, [answers[i] for i in order])
    check_same(run(params, requests[5:6]), answers[5:6])
    other = score.Sizes(batch_tokens=64, head_columns=5)
    check_same(run(params, requests[::2], other), answers[::2])


def test_nothing_leaks_between_packed_items(params) -> None:
    requests = [r for r in draw(12, seed=3) if len(r.context) < 30]
    before = run(params, requests)
    for victim in (0, 3):
        ids = tuple((i + 41) % 96 for i in requests[victim].context)
        choices = tuple(tuple((i + 13) % 96 for i in ids) for ids in requests[victim].choices)
        changed = [*requests]
        changed[victim] = Request(ids, choices)
        after = run(params, changed)
        assert after[victim] != before[victim]
        del after[victim]
        assert after == [a for i, a in enumerate(before) if i != victim]  # to the bit


def test_nothing_leaks_between_choices(params) -> None:
    context, kept, other = (4, 5, 6), (7, 8, 9), (9, 9, 9)
    (first,) = run(params, [Request(context, (kept, other, kept))])
    (second,) = run(params, [Request(context, (kept, (1, 2, 3), kept))])
    assert first.log_probs[0] == second.log_probs[0] == pytest.approx(first.log_probs[2], abs=1e-6)
    assert first.log_probs[2] == second.log_probs[2]


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(data=8), MeshConfig(data=2, fsdp=4), MeshConfig(data=1, fsdp=2, tensor=2)],
    ids=["data", "fsdp", "tensor"],
)
def test_the_same_on_a_mesh(params, requests, answers, mesh: MeshConfig) -> None:
    wide = dataclasses.replace(CONFIG, num_heads=4)
    rng_params = random_params(wide)
    halved = jax.tree.map(lambda x: 0.5 * x, rng_params)
    sizes = score.Sizes(batch_tokens=128, head_columns=16)
    check_same(
        run(halved, requests, sizes, mesh, wide), run(halved, requests, SIZES, config=wide), 2e-5
    )


def test_compiled_once_a_shape(params) -> None:
    config = dataclasses.replace(CONFIG, max_seq_len=63)  # not compiled by any other test
    run(params, draw(40), config=config)
    before = score.hidden_states._cache_size(), score.head._cache_size()
    run(params, draw(40, seed=9), config=config)
    after = score.hidden_states._cache_size(), score.head._cache_size()
    assert after == before


def test_a_request_without_choices_has_an_empty_answer(params) -> None:
    assert run(params, [Request((1, 2), ())]) == [Answer((), (), ())]


def test_errors_come_before_any_work(params) -> None:
    with pytest.raises(ValueError, match="request 1: choice 0 is empty"):
        run(params, [Request((1,), ((2,),)), Request((1,), ((),))])
