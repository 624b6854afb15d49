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
SIGMA = 6.0  # standard errors of the difference of two gaps, one the smallest of `MEMORY`
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
    gap: float  # mean of those of `losses` logged steps
    losses: int
    variance: float  # of the gaps
    loss: float  # mean


Span = tuple[float, float]  # steps (first, end]

WHOLE: Sequence[Span] = ((0, math.inf),)


def spans_of(data: DataConfig) -> list[Span]:
    """Returns the phases of a plan: other sources, or other weights, have losses of their own."""
    starts = [*(float(phase.from_step) for phase in data.plan), math.inf]
    return list(itertools.pairwise(starts))


@dataclass(frozen=True)
class Judgement:
    """What the record says of the phase that a run is in."""

    plunges: tuple[Plunge, ...]  # one that lasts for many evaluations is told once
    last_good: int  # step of the last evaluation at which all was well; 0: there is none yet
    is_plunging: bool  # the newest evaluation is that of a plunge, told at it or before


def judge(records: Sequence[Mapping[str, Any]], spans: Sequence[Span] = WHOLE) -> Judgement:
    """Returns what is known after the newest evaluation.

    Args:
      records: of metrics.jsonl, in order.
      spans: of `spans_of`. Gaps of one are not compared with those of another.
    """
    at = max((r["step"] for r in records if "held_out/loss" in r), default=0)
    begun = [span for span in spans if span[0] < max(at, 1)]
    points = _points(records, begun[-1])
    found: list[Plunge] = []
    good, verdict = points[0].step if points else 0, "good"
    first, end = 0, None  # of the evaluations that the next is compared with
    for i, point in enumerate(points):
        verdict, reference = _verdict(points[first : i if end is None else end], point)
        if verdict in ("good", "better"):
            good, end = point.step, None
            if verdict == "better":
                first = i  # the wider gap is the normal one from here on
        elif verdict == "bad" and end is None:
            # Until the run has recovered, what it was before the plunge stays the measure.
            end = i
            growth, fell = point.gap - reference.gap, reference.loss - point.loss
            found.append(Plunge(point.step, good, growth, fell, point.held_out))
    return Judgement(tuple(found), good, verdict == "bad")


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
                losses=gaps.size,
                variance=float(gaps.var(ddof=1)),
                loss=float(values[begin:past].mean()),
            )
        )
    return points


def _verdict(before: Sequence[_Point], point: _Point) -> tuple[str, _Point]:
    """Returns good, better (a wide gap, but progress on other text), bad, or open where it is not
    clear yet; and the evaluation that decides it."""
    if not before:
        return "good", point
    best = min(before, key=lambda p: p.held_out)
    compared = [*before[-MEMORY:], best]
    reference = min(compared, key=lambda p: p.gap)
    growth = point.gap - reference.gap
    # Few losses tell little of how much they scatter: that of all evaluations is taken.
    variance = float(np.mean([p.variance for p in (*compared, point)]))
    error = math.sqrt(variance * (1 / point.losses + 1 / reference.losses))
    limit = max(SHARE * point.held_out, SIGMA * error)
    if growth < limit / 2:
        return "good", reference
    if point.held_out < (1 - PROGRESS) * best.held_out:
        return "better", reference
    # Where only the held-out loss has risen, the model has not learnt its data by heart.
    is_bad = growth > limit and reference.loss - point.loss > limit / 2
    return ("bad" if is_bad else "open"), reference
