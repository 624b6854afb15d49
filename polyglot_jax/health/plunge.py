"""Whether the training loss falls away from the held-out loss: the model memorises.

Two of the four Polyglot-Ko runs ended so: near the end of the first epoch the loss plunged and the
texts fell apart, while nothing in the training loss alone told it from progress. The statistic is
the gap: held-out loss, interpolated between evaluations, minus the loss of each logged step. What
moves both, a lower learning rate say, does not open it; what opens it for good reasons, a model
that repeats its data and still gets better on other text, lets the held-out loss fall on.

Everything is computed from metrics.jsonl, so a run that resumes knows what it knew before.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyglot_jax.config import DataConfig

POINTS = 8  # logged losses that an evaluation is compared with, at least
MEMORY = 8  # evaluations back that the smallest gap is looked for
SIGMA = 4.0  # standard errors of the difference of two gaps
SHARE = 0.05  # of the held-out loss: a gap that grows by less is no plunge, however certain
PROGRESS = 0.005  # of the held-out loss: an evaluation better by that is a good one


@dataclass(frozen=True)
class Plunge:
    """An evaluation at which the gap has opened; losses in nats per token."""

    step: int
    since: int  # the last evaluation at which all was well
    growth: float  # of the gap, since it was smallest
    fell: float  # the training loss, since then
    held_out: float


@dataclass(frozen=True)
class _Point:
    """One evaluation and the training losses around it."""

    step: int
    held_out: float
    gap: float
    error: float  # standard error of the gap
    loss: float


Span = tuple[float, float]  # steps (first, end]

WHOLE: Sequence[Span] = ((0, math.inf),)


def spans_of(data: DataConfig) -> list[Span]:
    """Returns the phases of a plan: other sources, or other weights, have losses of their own."""
    starts = [*(float(phase.from_step) for phase in data.plan), math.inf]
    return list(itertools.pairwise(starts))


def find_plunges(
    records: Sequence[Mapping[str, Any]], spans: Sequence[Span] = WHOLE
) -> list[Plunge]:
    """Returns the plunges of a run; one that lasts for many evaluations is told once.

    Args:
      records: of metrics.jsonl, in order.
      spans: of `spans_of`. Gaps of one are not compared with those of another.
    """
    return [plunge for span in spans for plunge in _find(_points(records, span))[0]]


def last_good(records: Sequence[Mapping[str, Any]], spans: Sequence[Span] = WHOLE) -> int:
    """Returns the step of the last evaluation that was good, which a plunge found later goes back
    to; 0 if the phase has none yet. Args as `find_plunges`."""
    at = max((r["step"] for r in records if "held_out/loss" in r), default=0)
    begun = [span for span in spans if span[0] < max(at, 1)]
    return _find(_points(records, begun[-1]))[1]


def is_plunging(records: Sequence[Mapping[str, Any]], spans: Sequence[Span] = WHOLE) -> bool:
    """Returns whether the last evaluation is that of a plunge, told now or before."""
    points = _points(records, spans[-1])
    return bool(points) and _verdict(points[:-1], points[-1])[0] == "bad"


def _points(records: Sequence[Mapping[str, Any]], span: Span) -> list[_Point]:
    """Returns the evaluations within a span that have training losses enough."""
    first, end = span
    # The evaluation at the beginning of a phase is of the phase before, and of its held-out text.
    evaluations = {
        r["step"]: r["held_out/loss"]
        for r in records
        if "held_out/loss" in r and (first < r["step"] <= end or r["step"] == first == 0)
    }
    losses = {r["step"]: r["train/loss"] for r in records if "train/loss" in r}
    at = np.array(sorted(evaluations))
    held_out = np.array([evaluations[step] for step in at.tolist()])
    steps = np.array([step for step in sorted(losses) if first < step <= end], int)
    values = np.array([losses[step] for step in steps.tolist()])
    points = []
    for before, step in itertools.pairwise(at):
        past = int(np.searchsorted(steps, step, side="right"))
        begin = min(int(np.searchsorted(steps, before, side="right")), past - POINTS)
        if begin < 0:
            continue
        gaps = np.interp(steps[begin:past], at, held_out) - values[begin:past]
        points.append(
            _Point(
                step=int(step),
                held_out=evaluations[int(step)],
                gap=float(gaps.mean()),
                error=float(gaps.std(ddof=1)) / math.sqrt(gaps.size),
                loss=float(values[begin:past].mean()),
            )
        )
    return points


def _find(points: Sequence[_Point]) -> tuple[list[Plunge], int]:
    """Returns the plunges, and the step of the last good evaluation."""
    found = []
    is_told, good = False, points[0].step if points else 0
    for i, point in enumerate(points):
        verdict, reference = _verdict(points[:i], point)
        if verdict == "good":
            is_told, good = False, point.step
        elif verdict == "bad" and not is_told:
            is_told = True
            growth, fell = point.gap - reference.gap, reference.loss - point.loss
            found.append(Plunge(point.step, good, growth, fell, point.held_out))
    return found, good


def _verdict(before: Sequence[_Point], point: _Point) -> tuple[str, _Point]:
    """Returns good, bad, or neither ("open"), and the evaluation that decides it."""
    if not before:
        return "good", point
    best = min(before, key=lambda p: p.held_out)
    reference = min([*before[-MEMORY:], best], key=lambda p: p.gap)
    growth = point.gap - reference.gap
    limit = max(SHARE * point.held_out, SIGMA * math.hypot(point.error, reference.error))
    if growth < limit / 2 or point.held_out < (1 - PROGRESS) * best.held_out:
        return "good", reference
    # Where only the held-out loss has risen, the model has not learnt its data by heart.
    is_bad = growth > limit and reference.loss - point.loss > limit / 2
    return ("bad" if is_bad else "open"), reference
