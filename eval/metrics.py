"""From answers to numbers with error bars.

What the metrics look at of an item is its `Outcome`, and few outcomes differ. So a bootstrap
resample of the items is a draw, from the multinomial distribution, of how often each distinct
outcome occurs, and a metric is a function of such counts: all resamples are one call of numpy.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.request import Answer
from eval.task import Question, Task

SEED = 1234
RESAMPLES = 10_000
FEW_RESAMPLES = 1_000  # where more than MANY outcomes differ: of texts, each one does
MANY = 1_000
_CHUNK = 2_000_000  # counts at a time

Counts = NDArray[np.float64]  # [R, C]: resamples, distinct outcomes
Values = NDArray[np.float64]  # [R]
Mask = NDArray[np.bool_]  # [C]
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Outcome:
    """What became of an item, as far as metrics look at it."""

    gold: int  # the right class, -1 where there is none
    predicted: int  # the class that was chosen or generated; -1 is no valid one
    predicted_norm: int = -1  # the choice with the highest log-probability per character
    group: tuple[str, ...] = ()  # the values of `Question.extra`
    size: tuple[float, int, int] = (0.0, 0, 0)  # of a text: log-probability, bytes, words


@dataclass(frozen=True)
class Measure:
    """A number and its bootstrap standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class Difference:
    """Run B minus run A on the same items, by a paired bootstrap."""

    value: float
    stderr: float
    p_value: float  # two-sided: twice the share of resamples on the other side of zero, or on it


def outcomes(
    task: Task, questions: Sequence[Question], answers: Sequence[Answer] | Sequence[str]
) -> list[Outcome]:
    """Returns what became of each item.

    Args:
      answers: to each question; the completion of a generation task, and `perplexity.total` of a
        text.
    """
    pairs: Iterable[tuple[Question, Answer | str]] = zip(questions, answers, strict=True)
    return [_outcome(task, question, answer) for question, answer in pairs]


def _outcome(task: Task, question: Question, answer: Answer | str) -> Outcome:
    gold = -1 if question.gold is None else question.gold
    group = tuple(question.extra.values())
    if isinstance(answer, str):
        assert task.judge is not None
        said = task.judge(question, answer)
        return Outcome(gold, -1 if said is None else said, group=group)
    if task.kind == "text":
        (text,) = question.choices
        size = sum(answer.log_probs), len(text.encode()), len(re.split(r"\s+", text))
        return Outcome(gold, -1, group=group, size=size)
    log_probs = np.asarray(answer.log_probs)
    per_character = log_probs / np.asarray(question.lengths)
    return Outcome(gold, int(log_probs.argmax()), int(per_character.argmax()), group)


def measure(
    task: Task, questions: Sequence[Question], answers: Sequence[Answer] | Sequence[str]
) -> dict[str, Measure]:
    """Returns the task's metrics by name, the main one first; see `outcomes`."""
    return summarise(task, outcomes(task, questions, answers))


def summarise(task: Task, items: Sequence[Outcome]) -> dict[str, Measure]:
    """Returns the task's metrics by name, the main one first.

    Standard errors are the standard deviation over RESAMPLES resamples of the items, seeded.
    """
    cells, observed_1C = _distinct(items)
    values = _evaluate(task, cells, observed_1C)
    chunks = [_evaluate(task, cells, counts) for counts in _resamples(observed_1C)]
    spread = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in values}
    return {name: Measure(float(value[0]), _spread(spread[name])) for name, value in values.items()}


def _spread(values_R: Values) -> float:
    """Returns the standard deviation, nan where no resample has a value."""
    known = values_R[~np.isnan(values_R)]
    return float(known.std()) if len(known) else math.nan


def compare(task: Task, a: Sequence[Outcome], b: Sequence[Outcome]) -> dict[str, Difference]:
    """Returns B minus A in the task's metrics; item i of both runs is the same one.

    Raises ValueError if the runs differ in their items.
    """
    if [(o.gold, o.group) for o in a] != [(o.gold, o.group) for o in b]:
        raise ValueError(f"{task.name}: the two runs have other items; compare runs of one split")
    pairs, observed_1C = _distinct(list(zip(a, b, strict=True)))
    cells_a, cells_b = zip(*pairs, strict=True)

    def difference(counts_RC: Counts) -> dict[str, Values]:
        of_a, of_b = _evaluate(task, cells_a, counts_RC), _evaluate(task, cells_b, counts_RC)
        return {name: of_b[name] - of_a[name] for name in of_a if name in of_b}

    values = difference(observed_1C)
    chunks = [difference(counts) for counts in _resamples(observed_1C)]
    found = {}
    for name, value in values.items():
        spread_R = np.concatenate([chunk[name] for chunk in chunks])
        # A resample without a value counts against a difference, on both sides.
        beyond = min(float(np.mean(~(spread_R > 0))), float(np.mean(~(spread_R < 0))))
        found[name] = Difference(float(value[0]), _spread(spread_R), min(1.0, 2 * beyond))
    return found


def _distinct(items: Sequence[_Key]) -> tuple[list[_Key], Counts]:
    counter = Counter(items)
    return list(counter), np.array([list(counter.values())], np.float64)


def _resamples(observed_1C: Counts) -> Iterator[Counts]:
    """Yields counts of all resamples, as many at a time as fit."""
    rng = np.random.default_rng(SEED)
    num_items, num_cells = int(observed_1C.sum()), observed_1C.shape[1]
    shares_C = observed_1C[0] / num_items
    left = RESAMPLES if num_cells <= MANY else FEW_RESAMPLES
    while left:
        size = min(left, max(1, _CHUNK // num_cells))
        yield rng.multinomial(num_items, shares_C, size=size).astype(np.float64)
        left -= size


def _evaluate(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
    values: dict[str, Values] = {}
    for name in task.metrics:
        values.update(METRICS[name](task, cells, counts_RC))
    return values


def _ratio(above_R: Values, below_R: Values) -> Values:
    """Returns the quotient, nan where a resample has nothing to divide by."""
    return np.divide(above_R, below_R, out=np.full(len(above_R), np.nan), where=below_R != 0)


def _share(counts_RC: Counts, those: Mask, of: Mask) -> Values:
    """Returns the share that `those` have of the items `of`."""
    return _ratio(counts_RC @ (those & of), counts_RC @ of)


def _column(cells: Sequence[Outcome], name: str) -> NDArray[np.int64]:
    return np.array([getattr(cell, name) for cell in cells])


def _all(cells: Sequence[Outcome]) -> Mask:
    return np.ones(len(cells), bool)


Metric = Callable[[Task, Sequence[Outcome], Counts], dict[str, Values]]


def _accuracy(name: str, column: str) -> Metric:
    def metric(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
        right = _column(cells, column) == _column(cells, "gold")
        return {name: _share(counts_RC, right, _all(cells))}

    return metric


def _accuracy_by_group(name: str, column: str) -> Metric:
    def metric(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
        right = _column(cells, column) == _column(cells, "gold")
        groups = sorted({cell.group for cell in cells})
        return {
            f"{name}:{'/'.join(group)}": _share(
                counts_RC, right, np.array([cell.group == group for cell in cells])
            )
            for group in groups
        }

    return metric


def _macro_f1(name: str, column: str) -> Metric:
    """The mean of the F1 of the classes that occur, in the gold or in the predictions.

    As scikit-learn's: a class that is never predicted, or never right, has 0. An answer that is no
    class misses its gold class and is none of its own.
    """

    def metric(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
        gold, predicted = _column(cells, "gold"), _column(cells, column)
        total_R = np.zeros(len(counts_RC))
        classes_R = np.zeros(len(counts_RC))
        for label in sorted({*gold, *predicted} - {-1}):
            hit_R = counts_RC @ ((gold == label) & (predicted == label))
            either_R = counts_RC @ (gold == label) + counts_RC @ (predicted == label)
            total_R += np.nan_to_num(_ratio(2 * hit_R, either_R))
            classes_R += either_R > 0
        return {name: _ratio(total_R, classes_R)}

    return metric


def _class_f1(name: str, column: str, excluded: int) -> Metric:
    """The F1 over the items of all classes but one, counted together (micro)."""

    def metric(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
        gold, predicted = _column(cells, "gold"), _column(cells, column)
        in_gold, in_predicted = gold != excluded, (predicted != excluded) & (predicted != -1)
        either_R = counts_RC @ in_gold + counts_RC @ in_predicted
        return {name: _ratio(2 * (counts_RC @ (in_gold & (gold == predicted))), either_R)}

    return metric


def _invalid_rate(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
    return {"invalid_rate": _share(counts_RC, _column(cells, "predicted") == -1, _all(cells))}


def _histogram(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
    return {
        f"{name}:{label}": _share(counts_RC, _column(cells, name) == i, _all(cells))
        for name in ("predicted", "gold")
        for i, label in enumerate(task.labels)
    }


def _bias(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
    """KoBBQ's four numbers (Jin et al., arXiv 2307.16778), of the answers that are a choice.

    Groups are (context: "amb", "biased" or "counter", number of the biased choice).
    """
    gold, predicted = _column(cells, "gold"), _column(cells, "predicted")
    context = np.array([cell.group[0] for cell in cells])
    biased = predicted == np.array([int(cell.group[1]) for cell in cells])
    valid, right = predicted != -1, predicted == gold
    ambiguous = valid & (context == "amb")
    counter = ~biased & (predicted != gold)  # in an ambiguous context "unknown" is right
    return {
        "acc_amb": _share(counts_RC, right, ambiguous),
        "acc_dis": _share(counts_RC, right, valid & (context != "amb")),
        "diff_bias_amb": _share(counts_RC, biased, ambiguous)
        - _share(counts_RC, counter, ambiguous),
        "diff_bias_dis": _share(counts_RC, right, valid & (context == "biased"))
        - _share(counts_RC, right, valid & (context == "counter")),
    }


def _perplexity(task: Task, cells: Sequence[Outcome], counts_RC: Counts) -> dict[str, Values]:
    log_prob, num_bytes, words = np.array([cell.size for cell in cells]).T
    nats_R = -(counts_RC @ log_prob)
    return {
        "bits_per_byte": _ratio(nats_R, counts_RC @ num_bytes) / np.log(2),
        "byte_perplexity": np.exp(_ratio(nats_R, counts_RC @ num_bytes)),
        "word_perplexity": np.exp(_ratio(nats_R, counts_RC @ words)),
    }


METRICS: dict[str, Metric] = {
    "acc": _accuracy("acc", "predicted"),
    "acc_norm": _accuracy("acc_norm", "predicted_norm"),
    "acc_by_group": _accuracy_by_group("acc", "predicted"),
    "acc_norm_by_group": _accuracy_by_group("acc_norm", "predicted_norm"),
    "macro_f1": _macro_f1("macro_f1", "predicted"),
    "macro_f1_norm": _macro_f1("macro_f1_norm", "predicted_norm"),
    "f1": _class_f1("f1", "predicted", excluded=0),  # of two classes that of the second
    "micro_f1": _class_f1("micro_f1", "predicted", excluded=0),
    "micro_f1_norm": _class_f1("micro_f1_norm", "predicted_norm", excluded=0),
    "invalid_rate": _invalid_rate,
    "histogram": _histogram,
    "bias": _bias,
    "perplexity": _perplexity,
}
