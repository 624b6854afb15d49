"""The plunge: seen where a model begins to memorise, and nowhere else."""

import json

import numpy as np
import pytest

from polyglot_jax.config import load_experiment
from polyglot_jax.health.plunge import judge, spans_of
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
    assert judge(runs["healthy"][seed]).plunges == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_alarm_when_the_source_changes(runs, seed):
    records = runs["changing"][seed]
    losses = {r["step"]: r["train/loss"] for r in records if "train/loss" in r}
    assert losses[CHANGE + 1] > losses[CHANGE] + 1
    assert judge(records, CHANGING).plunges == ()


def test_a_phase_is_watched_by_itself(runs):
    """The first phase memorises and the second is well."""
    first = [r for r in runs["memorising"] if r["step"] <= CHANGE]
    second = [r for r in runs["changing"][0] if r["step"] > CHANGE]
    assert judge(first, CHANGING) == judge(first)
    assert judge(first, CHANGING).is_plunging
    assert judge([*first, *second], CHANGING).plunges == ()
    assert not judge([*first, *second], CHANGING).is_plunging


def test_the_alarm_comes_where_the_held_out_loss_turns(runs):
    (plunge,) = judge(runs["memorising"]).plunges
    held_out = {r["step"]: r["held_out/loss"] for r in runs["memorising"] if "held_out/loss" in r}
    best = min(held_out, key=lambda step: held_out[step])
    assert EPOCH < plunge.since == best
    assert plunge.step <= best + 2 * EVERY
    assert held_out[STEPS] > 1.1 * held_out[best]  # it was right
    assert judge(runs["memorising"]).is_plunging
    assert not judge(runs["healthy"][0]).is_plunging


def test_an_alarm_is_raised_at_once_and_only_once(runs):
    """What is known at each evaluation is what is known in the end: a resumed run agrees."""
    records = runs["memorising"]
    (plunge,) = judge(records).plunges
    at = records.index({"step": plunge.step, "held_out/loss": plunge.held_out})
    assert judge(records[:at]).plunges == ()
    assert judge(records[: at + 1]).plunges == (plunge,)


def made(
    fall_from: int, follows: float, noise: float = 0.02, seed: int = 0, steps: int = 2000
) -> list[dict[str, float]]:
    """A loss of 3 that drops to 2 within 100 steps; the held-out loss follows by a share."""
    rng = np.random.default_rng(seed)
    records = []
    for step in range(10, steps + 1, 10):
        fallen = min(max(step - fall_from, 0) / 100, 1.0)
        records.append({"step": step, "train/loss": 3 - fallen + noise * rng.normal()})
        if step % 100 == 0:
            records.append({"step": step, "held_out/loss": 3.1 - follows * fallen})
    return records


@pytest.mark.parametrize(
    ("fall_from", "follows", "expected"),
    [(1000, 0.0, [(1100, 1000)]), (1070, 0.0, [(1200, 1000)]), (1000, 1.0, []), (9999, 0.0, [])],
)
def test_the_shape_that_the_report_describes(fall_from, follows, expected):
    found = judge(made(fall_from, follows)).plunges
    assert [(plunge.step, plunge.since) for plunge in found] == expected


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_noise_alone_is_no_plunge(noise):
    alarms = [seed for seed in range(100) if judge(made(9999, 0.0, noise, seed)).plunges]
    assert alarms == []


def test_who_goes_on_learning_by_heart_is_told_so_once():
    """The measure stays what the run was before, or the tag would move into the plunge."""
    records = made(1000, 0.0, steps=6000)
    for record in records:
        if "train/loss" in record and record["step"] > 3000:
            record["train/loss"] -= min((record["step"] - 3000) / 1000, 1)
        elif "held_out/loss" in record and record["step"] > 1000:
            record["held_out/loss"] *= 1 - 2e-7 * record["step"]  # hardly better
    assert [plunge.step for plunge in judge(records).plunges] == [1100]
    assert judge(records).last_good == 1000
    assert judge(records).is_plunging


def test_a_run_that_has_recovered_can_plunge_again():
    """Better on other text than ever: the gap of now is the normal one."""
    records = made(1000, 0.0, steps=4000)
    for record in records:
        if "held_out/loss" in record and record["step"] >= 2000:
            record["held_out/loss"] -= 0.2
        elif "train/loss" in record and record["step"] > 3000:
            record["train/loss"] -= 1
    found = [(plunge.step, plunge.since) for plunge in judge(records).plunges]
    assert found == [(1100, 1000), (3100, 3000)]


def test_a_rising_held_out_loss_alone_is_no_plunge():
    records = made(9999, 0.0)
    for record in records:
        if "held_out/loss" in record and record["step"] > 1000:
            record["held_out/loss"] += 1
    assert judge(records).plunges == ()


@pytest.mark.parametrize("records", [[], [{"step": 0, "held_out/loss": 9.0}], made(9999, 0)[:3]])
def test_too_little_is_known(records):
    assert judge(records).plunges == ()
    assert not judge(records).is_plunging
