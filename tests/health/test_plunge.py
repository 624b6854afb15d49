"""The plunge: seen where a model begins to memorise, and nowhere else."""

import json

import numpy as np
import pytest

from polyglot_jax.config import load_experiment
from polyglot_jax.health.plunge import find_plunges, is_plunging, spans_of
from tests.health import curves
from tests.health.curves import BATCH, CHANGE, EVERY, STEPS, epochs, language, texts

EPOCH = 8  # steps of the corpus that is too small
SEEDS = range(5)
CHANGING = spans_of(load_experiment("ko_tiny", [f"data.plan={json.dumps(curves.PLAN)}"]).data)


@pytest.fixture(scope="module")
def runs():
    """Five healthy runs, five whose source changes, and one that repeats a small corpus."""
    ours, other = language(1), language(2)

    def fresh(of: np.ndarray, seed: int, steps: int) -> np.ndarray:
        return texts(of, seed, steps * BATCH).reshape(steps, BATCH, -1)

    healthy = [fresh(ours, 100 + i, STEPS) for i in SEEDS]
    later = [fresh(other, 400 + i, STEPS - CHANGE) for i in SEEDS]
    changing = [np.concatenate(p) for p in zip([d[:CHANGE] for d in healthy], later, strict=True)]
    small = epochs(texts(ours, 200, EPOCH * BATCH), STEPS, seed=0)
    own, others = texts(ours, 300, 256), texts(other, 301, 256)
    held_out = [[own, own]] * 5 + [[own, others]] * 5 + [[own, own]]
    data = np.stack([*healthy, *changing, small])
    records = curves.train([*SEEDS, *SEEDS, 0], data, np.stack(held_out))
    return {"healthy": records[:5], "changing": records[5:10], "memorising": records[10]}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_alarm_on_a_healthy_run_whose_learning_rate_falls(runs, seed):
    assert find_plunges(runs["healthy"][seed]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_no_alarm_when_the_source_changes(runs, seed):
    records = runs["changing"][seed]
    losses = {r["step"]: r["train/loss"] for r in records if "train/loss" in r}
    assert losses[CHANGE + 1] > losses[CHANGE] + 1
    assert find_plunges(records, CHANGING) == []


def test_a_phase_is_watched_by_itself(runs):
    """The first phase memorises and the second is well: the alarm is that of the first alone."""
    first = [r for r in runs["memorising"] if r["step"] <= CHANGE]
    second = [r for r in runs["changing"][0] if r["step"] > CHANGE]
    assert find_plunges([*first, *second], CHANGING) == find_plunges(first) != []
    assert not is_plunging([*first, *second], CHANGING)
    assert is_plunging(first)


def test_the_alarm_comes_where_the_held_out_loss_turns(runs):
    (plunge,) = find_plunges(runs["memorising"])
    held_out = {r["step"]: r["held_out/loss"] for r in runs["memorising"] if "held_out/loss" in r}
    best = min(held_out, key=lambda step: held_out[step])
    assert EPOCH < plunge.since == best
    assert plunge.step <= best + 2 * EVERY
    assert held_out[STEPS] > 1.1 * held_out[best]  # it was right
    assert is_plunging(runs["memorising"])
    assert not is_plunging(runs["healthy"][0])


def test_an_alarm_is_raised_at_once_and_only_once(runs):
    """What is known at each evaluation is what is known in the end: a resumed run agrees."""
    records = runs["memorising"]
    (plunge,) = find_plunges(records)
    at = records.index({"step": plunge.step, "held_out/loss": plunge.held_out})
    assert find_plunges(records[:at]) == []
    assert find_plunges(records[: at + 1]) == [plunge]


def made(fall_from: int, follows: float, noise: float = 0.02) -> list[dict[str, float]]:
    """A loss of 3 that drops to 2 within 100 steps; the held-out loss follows by a share."""
    rng = np.random.default_rng(0)
    records = []
    for step in range(10, 2001, 10):
        fallen = min(max(step - fall_from, 0) / 100, 1.0)
        records.append({"step": step, "train/loss": 3 - fallen + noise * rng.normal()})
        if step % 100 == 0:
            records.append({"step": step, "held_out/loss": 3.1 - follows * fallen})
    return records


@pytest.mark.parametrize(
    ("fall_from", "follows", "expected"),
    [(1000, 0.0, [(1100, 1000)]), (1050, 0.0, [(1200, 1000)]), (1000, 1.0, []), (9999, 0.0, [])],
)
def test_the_shape_that_the_report_describes(fall_from, follows, expected):
    found = find_plunges(made(fall_from, follows))
    assert [(plunge.step, plunge.since) for plunge in found] == expected


def test_noise_alone_is_no_plunge():
    assert find_plunges(made(9999, 0.0, noise=0.5)) == []


def test_a_rising_held_out_loss_alone_is_no_plunge():
    records = made(9999, 0.0)
    for record in records:
        if "held_out/loss" in record and record["step"] > 1000:
            record["held_out/loss"] += 1
    assert find_plunges(records) == []


@pytest.mark.parametrize("records", [[], [{"step": 0, "held_out/loss": 9.0}], made(9999, 0)[:3]])
def test_too_little_is_known(records):
    assert find_plunges(records) == []
    assert not is_plunging(records)
