"""Metrics against scikit-learn and the published constants, and their error bars."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from eval import metrics, tasks
from eval.metrics import Outcome
from eval.request import Answer
from eval.task import Question, Task

# Labels of KoBEST's test splits, and the F1 of always giving the first or the second answer as
# published: XGLM 7.5B has .3324 in BoolQ ("아니오" always), Polyglot-Ko .3280 in WiC ("예" always).
CONSTANT = [
    ("kobest_boolq", (699, 705), (0.3324, 0.3343)),
    ("kobest_copa", (517, 483), (0.3408, 0.3257)),
    ("kobest_hellaswag", (124, 137, 121, 118), (0.0994, 0.1075, 0.0974, 0.0955)),
    ("kobest_sentineg", (197, 200), (0.3316, 0.3350)),
    ("kobest_wic", (645, 615), (0.3386, 0.3280)),
]


def task(name: str, *names: str) -> Task:
    (found,) = tasks.find([name])
    return replace(found, metrics=names) if names else found


def made(gold: Sequence[int], predicted: Sequence[int]) -> list[Outcome]:
    return [Outcome(g, p, p) for g, p in zip(gold, predicted, strict=True)]


@pytest.mark.parametrize(("name", "counts", "values"), CONSTANT)
def test_constant_answers(name: str, counts: Sequence[int], values: Sequence[float]) -> None:
    gold = np.repeat(np.arange(len(counts)), counts)
    for answer, value in enumerate(values):
        found = metrics.summarise(task(name), made(gold, [answer] * len(gold)))
        assert found["macro_f1"].value == pytest.approx(value, abs=5e-5)
        assert found["acc"].value == counts[answer] / sum(counts)


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_sklearn(seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 3, 40)
    predicted = rng.choice([0, 1, 3], 40)  # 2 is never predicted, 3 is never right
    some = task("kobest_hellaswag", "macro_f1", "micro_f1", "acc")
    found = metrics.summarise(some, made(gold, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macro = sklearn_metrics.f1_score(gold, predicted, average="macro")
        micro = sklearn_metrics.f1_score(gold, predicted, average="micro", labels=[1, 2, 3])
    assert found["macro_f1"].value == pytest.approx(macro, abs=1e-12)
    assert found["micro_f1"].value == pytest.approx(micro, abs=1e-12)
    assert found["acc"].value == np.mean(gold == predicted)


def test_bootstrap_is_that_of_the_items() -> None:
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 2, 100), rng.integers(0, 2, 100)
    items = made(gold, predicted)
    copa = task("kobest_copa")
    found = metrics.summarise(copa, items)
    assert found == metrics.summarise(copa, items)
    share = found["acc"].value
    assert found["acc"].stderr == pytest.approx(math.sqrt(share * (1 - share) / 100), rel=0.03)
    drawn = rng.integers(0, 100, (2000, 100))
    resampled = [_f1(gold[rows], predicted[rows]) for rows in drawn]
    assert found["macro_f1"].stderr == pytest.approx(float(np.std(resampled)), rel=0.06)


def _f1(gold: np.ndarray, predicted: np.ndarray) -> float:
    scores = []
    for label in (0, 1):
        hit = np.sum((gold == label) & (predicted == label))
        scores.append(2 * hit / (np.sum(gold == label) + np.sum(predicted == label)))
    return float(np.mean(scores))


def test_normalised_choice() -> None:
    question = Question("t", 0, "", ("  ab", " abcdefgh"), lengths=(2, 8), gold=1)
    answer = Answer((-3.0, -4.0), (False, False), (5, 5))
    (outcome,) = metrics.outcomes(task("kobest_hellaswag"), [question], [answer])
    assert (outcome.predicted, outcome.predicted_norm, outcome.gold) == (0, 1, 1)


def test_equal_choices_take_the_first() -> None:
    question = Question("t", 0, "", (" a", " b"), lengths=(1, 1), gold=1)
    answer = Answer((-3.0, -3.0), (False, False), (5, 5))
    (outcome,) = metrics.outcomes(task("kobest_copa"), [question], [answer])
    assert outcome.predicted == 0


def test_invalid_answers_are_wrong_and_counted() -> None:
    items = made([0, 0, 1, 1], [0, -1, 1, -1])
    found = metrics.summarise(task("nsmc_generate"), items)
    assert found["acc"].value == 0.5
    assert found["invalid_rate"].value == 0.5
    assert found["predicted:부정"].value == 0.25
    assert found["gold:부정"].value == 0.5
    assert found["macro_f1"].value == pytest.approx(2 / 3)


def test_groups() -> None:
    items = [Outcome(0, 0, 1, ("a",)), Outcome(0, 0, 0, ("a",)), Outcome(0, 1, 0, ("b",))]
    found = metrics.summarise(task("minimal_pairs"), items)
    values = {name: measure.value for name, measure in found.items()}
    assert values == {
        "acc": 2 / 3, "acc_norm": 2 / 3,
        "acc:a": 1.0, "acc:b": 0.0, "acc_norm:a": 0.5, "acc_norm:b": 1.0,
    }  # fmt: skip


def test_bias() -> None:
    """Two right, one biased, one counter to it, one invalid of the ambiguous ones, and so on."""
    ambiguous = [(0, 0), (0, 0), (0, 1), (0, 2), (0, -1)]
    items = [Outcome(gold, said, group=("amb", "1")) for gold, said in ambiguous]
    items += [Outcome(1, said, group=("biased", "1")) for said in (1, 1, 1, 2)]
    items += [Outcome(2, said, group=("counter", "1")) for said in (2, 0, 1, 1)]
    found = metrics.summarise(task("kobbq"), items)
    assert found["acc_amb"].value == 0.5
    assert found["acc_dis"].value == 0.5
    assert found["diff_bias_amb"].value == 0.0
    assert found["diff_bias_dis"].value == 0.5
    assert found["invalid_rate"].value == pytest.approx(1 / 13)


def test_perplexity() -> None:
    questions = [Question("text", i, "", (text,)) for i, text in enumerate(("가 나", "ab"))]
    answers = [
        Answer((-7 * math.log(2),), (False,), (1,)),
        Answer((-2 * math.log(2),), (False,), (1,)),
    ]
    found = metrics.measure(task("text"), questions, answers)
    assert found["bits_per_byte"].value == pytest.approx(1.0)
    assert found["byte_perplexity"].value == pytest.approx(2.0)
    assert found["word_perplexity"].value == pytest.approx(8.0)
    assert found["bits_per_byte"].stderr == pytest.approx(0.0, abs=1e-12)


def test_many_texts_are_resampled_in_pieces() -> None:
    rng = np.random.default_rng(0)
    log_probs = -rng.uniform(1, 3, 3000)
    items = [Outcome(-1, -1, size=(float(value), 1, 1)) for value in log_probs]
    found = metrics.summarise(task("text"), items)["bits_per_byte"]
    wanted = log_probs.std() / math.sqrt(3000) / math.log(2)
    assert found.stderr == pytest.approx(wanted, rel=0.1)


def test_comparison() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 500)
    a = made(gold, np.where(rng.random(500) < 0.6, gold, 1 - gold))
    b = [o if i % 5 else replace(o, predicted=o.gold) for i, o in enumerate(a)]
    copa = task("kobest_copa")
    same = metrics.compare(copa, a, a)["acc"]
    assert (same.value, same.stderr, same.p_value) == (0.0, 0.0, 1.0)
    better = metrics.compare(copa, a, b)["acc"]
    gains = np.array([x != y for x, y in zip(a, b, strict=True)])
    assert better.value == pytest.approx(gains.mean())
    assert better.stderr == pytest.approx(gains.std() / math.sqrt(500), rel=0.05)
    assert better.p_value < 0.001
    assert metrics.compare(copa, b, a)["acc"].value == -better.value
    noisy = [replace(o, predicted=int(p)) for o, p in zip(a, rng.integers(0, 2, 500), strict=True)]
    again = [replace(o, predicted=int(p)) for o, p in zip(a, rng.integers(0, 2, 500), strict=True)]
    assert metrics.compare(copa, noisy, again)["acc"].p_value > 0.01


def test_other_items_are_not_compared() -> None:
    with pytest.raises(ValueError, match="other items"):
        metrics.compare(task("kobest_copa"), made([0, 1], [0, 1]), made([1, 0], [0, 1]))


def test_a_measure_without_items_has_no_value_and_no_warning() -> None:
    items = [Outcome(2, -1, group=("amb", "0"))] * 3  # no answer is one of the choices
    kobbq = task("kobbq")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.summarise(kobbq, items)
        same = metrics.compare(kobbq, items, items)["acc_amb"]
    assert math.isnan(found["acc_amb"].value)
    assert math.isnan(found["acc_amb"].stderr)
    assert found["invalid_rate"].value == 1
    assert math.isnan(same.value)
    assert same.p_value == 1
