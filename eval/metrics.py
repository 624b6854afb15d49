"""From answers to numbers with error bars.

What a metric looks at of an item is an `Outcome`, and few of these differ: a bootstrap resample of
the items is a draw of counts over the distinct outcomes, from the multinomial distribution. So ten
thousand resamples of a whole test set are one numpy call, exact, and every metric is a function of
such counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eval.request import Answer
from eval.task import Question, Task

SEED = 1234
RESAMPLES = 10_000
FEW_RESAMPLES = 1_000  # where more than MANY_OUTCOMES outcomes differ
MANY_OUTCOMES = 1_000

Counts = NDArray[np.integer]  # [R, C]: resamples, distinct outcomes
Values = NDArray[np.float64]  # [R]


@dataclass(frozen=True)
class Outcome:
    """What became of an item, as far as metrics look at it. NONE where there is nothing."""

    gold: int = -1
    predicted: int = -1  # the most probable choice, or what was generated; -1 is nothing valid
    predicted_norm: int = -1  # most probable by log-probability per character
    group: str = ""
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
    p_value: float  # two-sided: twice the share of resamples in which the sign is the other one


def outcomes(
    task: Task, questions: Sequence[Question], answers: Sequence[Answer] | Sequence[str]
) -> list[Outcome]:
    """Returns what became of each item; answers are completions for a generation task."""
    raise NotImplementedError


def measure(
    task: Task, questions: Sequence[Question], answers: Sequence[Answer] | Sequence[str]
) -> dict[str, Measure]:
    """Returns the task's metrics by name, the main one first."""
    raise NotImplementedError


def compare(task: Task, a: Sequence[Outcome], b: Sequence[Outcome]) -> dict[str, Difference]:
    """Returns B minus A for the task's metrics; item i of both is the same item.

    Raises ValueError if the runs have not the same items.
    """
    raise NotImplementedError
