"""Rolling windows: every token once, as lm-evaluation-harness rolls them."""

import warnings

import pytest

from eval.perplexity import requests, total
from eval.request import Answer, Request
from eval.task import Question

END = 0


class Numbers:
    """A tokenizer of texts that are numbers."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: object) -> str:
        raise NotImplementedError


def windows(length: int, max_length: int) -> list[Request]:
    text = " ".join(str(i) for i in range(1, length + 1))
    return requests(Question("text", 0, "", (text,)), Numbers(), END, max_length)


def test_windows() -> None:
    assert windows(3, 4) == [Request((END,), ((1, 2, 3),))]
    assert windows(6, 4) == [
        Request((END,), ((1, 2, 3, 4),)),
        Request((2, 3, 4), ((5, 6),)),  # as much as fits before the last ones
    ]
    assert windows(0, 4) == []


@pytest.mark.parametrize("max_length", [1, 4, 7])
def test_every_token_is_predicted_once_and_fits(max_length: int) -> None:
    for length in range(30):
        found = windows(length, max_length)
        assert [i for w in found for i in w.choices[0]] == list(range(1, length + 1))
        assert all(len(w.context) + len(w.choices[0]) <= max_length + 1 for w in found)


def test_windows_are_those_of_lm_eval() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("lm_eval.utils")
    for max_length in (2, 4, 7):
        for length in range(1, 30):
            ids = list(range(1, length + 1))
            theirs = utils.get_rolling_token_windows(ids, END, max_length, context_len=1)
            wanted = [tuple(map(tuple, utils.make_disjoint_window(pair))) for pair in theirs]
            ours = [(w.context, w.choices[0]) for w in windows(length, max_length)]
            assert ours == wanted


def test_total() -> None:
    parts = [Answer((-1.5,), (True,), (1,)), Answer((-2.0,), (False,), (3,))]
    assert total(parts) == Answer((-3.5,), (False,), (1,))
    assert total([]) == Answer((0,), (True,), (0,))
